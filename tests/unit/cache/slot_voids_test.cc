// Slots that came to another server: what was stored of them before is void, and nothing else.
// Drawn moves and replies against a list of both.
#include "nearkey/cache/near_cache.h"
#include "nearkey/resp/slot.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace nearkey::slot_voids_test {
namespace {

using Outcome = NearCache::Outcome;

CacheQuery get(std::string_view key, std::string_view arguments = {}) {
    return {.key = key, .arguments = arguments, .command = 3, .database = 0};
}

}  // namespace

TEST_CASE("slot voids: what was stored before is void, what is stored later is not") {
    NearCacheOptions options;
    options.max_staleness_ms = UINT32_MAX;
    Metrics metrics;
    NearCache cache(options, metrics, 1);
    const auto source = cache.open_source(1);
    std::map<std::string, uint64_t> stored;  // when, by key
    std::map<uint16_t, uint64_t> moved;      // when, by slot
    std::minstd_rand draw(7);
    uint64_t now_ms = 1'000'000;
    for (int step = 0; step < 20'000; ++step) {
        now_ms += draw() % 40;
        // Some keys of each of a few slots, whole or with arguments.
        const auto slot = static_cast<uint16_t>(draw() % 20);
        const std::string key = "{" + tag_of(slot) + "}" + std::to_string(draw() % 5);
        switch (draw() % 8) {
            case 0:
                cache.void_slots({&slot, 1}, slot_of, now_ms);
                moved[slot] = now_ms;
                break;
            case 1:
                if (draw() % 10 == 0) {
                    std::vector<uint16_t> some;
                    for (uint16_t each = 0; each < 20; each += 3) {
                        some.push_back(each);
                        moved[each] = now_ms;
                    }
                    cache.void_slots(some, slot_of, now_ms);
                }
                break;
            case 2:
            case 3: {
                const auto ticket = cache.begin_fill(get(key), source);
                REQUIRE(ticket != 0);
                const bool is_moved = draw() % 4 == 0;
                if (is_moved) {
                    cache.void_slots({&slot, 1}, slot_of, now_ms);
                    moved[slot] = now_ms;
                }
                CHECK(cache.is_open(ticket) == !is_moved);
                cache.commit(ticket, "+v\r\n", UINT64_MAX, now_ms);
                is_moved ? stored.erase(key) : (stored[key] = now_ms, size_t{1});
                break;
            }
            default: {
                const auto when = stored.find(key);
                const auto move = moved.find(slot);
                const bool is_void = when == stored.end() ||
                                     (move != moved.end() &&
                                      when->second / kItemTickMs <= move->second / kItemTickMs);
                CHECK((cache.find(get(key), now_ms).outcome == Outcome::Hit) == !is_void);
                CHECK((cache.explain(get(key), now_ms).outcome == Outcome::Hit) == !is_void);
            }
        }
    }
    CHECK(metrics.near_cache_hits_total > 100);
    cache.check_invariants();
}

TEST_CASE("slot voids: slots that moved half a year ago are forgotten") {
    NearCacheOptions options;
    Metrics metrics;
    NearCache cache(options, metrics, 1);
    const auto source = cache.open_source(1);
    const uint64_t day_ms = uint64_t{24} * 60 * 60 * 1000;
    const uint16_t slot = slot_of("k");
    cache.void_slots({&slot, 1}, slot_of, day_ms);
    for (const uint64_t days : {2, 179, 250, 300, 400, 700}) {
        CAPTURE(days);
        const uint64_t now_ms = days * day_ms;
        cache.sweep(1, now_ms);
        cache.renew_source(source, now_ms);
        cache.commit(cache.begin_fill(get("k"), source), "+v\r\n", UINT64_MAX, now_ms);
        CHECK(cache.find(get("k"), now_ms).outcome == Outcome::Hit);
    }
}

TEST_CASE("slot voids: what moved is not served stale, either, nor watched as served") {
    NearCacheOptions options;
    options.stale_if_unavailable_ms = 10'000;
    Metrics metrics;
    NearCache cache(options, metrics, 1);
    const uint64_t now_ms = 1'000'000;
    const auto source = cache.open_source(now_ms);
    const std::string moved = "{" + tag_of(1) + "}";
    const std::string stays = "{" + tag_of(2) + "}";
    for (const std::string& key : {moved, stays}) {
        const auto ticket = cache.begin_fill(get(key), source);
        REQUIRE(ticket != 0);
        cache.commit(ticket, "+v\r\n", UINT64_MAX, now_ms);
    }
    NearCache::Watch watch(cache);
    NearCache::Watch other(cache);
    watch.set(get(moved));
    other.set(get(stays));
    REQUIRE(watch.is_served(now_ms));
    REQUIRE(cache.find_stale(get(moved), now_ms) == "+v\r\n");
    const uint16_t slot = 1;
    cache.void_slots({&slot, 1}, slot_of, now_ms);
    CHECK_FALSE(watch.is_served(now_ms));
    CHECK(other.is_served(now_ms));
    CHECK(cache.find_stale(get(moved), now_ms).empty());
    CHECK(cache.find_stale(get(stays), now_ms) == "+v\r\n");
    // Nor is it kept for the time when Valkey is away, as the other one is.
    cache.close_source(source);
    CHECK(cache.find(get(stays), now_ms).outcome == Outcome::Miss);
    CHECK(cache.entries() == 2);
    CHECK(cache.find(get(moved), now_ms).outcome == Outcome::Miss);
    CHECK(cache.entries() == 1);
    CHECK(cache.find_stale(get(stays), now_ms) == "+v\r\n");
}

}  // namespace nearkey::slot_voids_test
