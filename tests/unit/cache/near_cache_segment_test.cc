#include "nearkey/cache/near_cache.h"

#include "segment_rig.h"

#include <doctest/doctest.h>

#include <array>
#include <random>
#include <string>

namespace nearkey::near_cache_segment_test {

namespace {

using Outcome = NearCache::Outcome;

constexpr uint64_t kHour = 3'600'000;

struct Rig {
    NearCacheOptions options;
    Metrics metrics;
    SegmentRig segment{SharedReplies::kSizeMin};
    uint64_t now = SegmentRig::boot_ms();
    NearCache cache{with_long_bound(options), metrics, 1};
    NearCache::SourceId source = cache.open_source(now);

    Rig() { begin(); }
    ~Rig() { cache.check_invariants(); }
    void begin() { cache.shared_replies().begin(segment.memory(), {1, 1}); }

    static const NearCacheOptions& with_long_bound(NearCacheOptions& options) {
        options.max_staleness_ms = kHour;
        return options;
    }
    static CacheQuery get(std::string_view key) { return {key, {}, 2, 0, Sharing::Get}; }
    static CacheQuery part(std::string_view key) { return {key, {}, 4, 0, Sharing::Part}; }
    void fill(const CacheQuery& query, std::string_view reply) {
        const NearCache::Ticket ticket = cache.begin_fill(query, source);
        REQUIRE(ticket != 0);
        cache.commit(ticket, reply, UINT64_MAX, now);
    }
    // Stores it for a client that shares nothing.
    void fill_unshared(std::string_view key, std::string_view reply) {
        fill({key, {}, 2, 0}, reply);
    }
};

}  // namespace

TEST_CASE("segment: what a client that shares has read is there, of others once it was hit") {
    Rig rig;
    rig.fill(Rig::get("k"), "$5\r\nvalue\r\n");
    CHECK(rig.segment.get("k") == "value");
    rig.fill_unshared("other", "$1\r\nv\r\n");
    CHECK(rig.cache.find({"other", {}, 2, 0}, rig.now).outcome == Outcome::Hit);
    CHECK(rig.segment.get("other") == "(miss)");
    CHECK(rig.cache.find(Rig::get("other"), rig.now).outcome == Outcome::Hit);
    CHECK(rig.segment.get("other") == "v");
    CHECK(rig.cache.explain(Rig::get("other"), rig.now).is_shared);
    rig.fill(Rig::get("nil"), "$-1\r\n");
    CHECK(rig.segment.get("nil") == "(nil)");
    rig.fill(Rig::get("null"), "_\r\n");
    CHECK(rig.segment.get("null") == "(nil)");
    rig.fill(Rig::part("part"), "$-1\r\n");
    CHECK(rig.segment.get("part") == "(miss)");
    CHECK(rig.segment.mget("part") == "(nil)");
    rig.fill(Rig::part("set"), "$0\r\n\r\n");
    CHECK(rig.segment.get("set").empty());
    // Whatever is no reply to GET.
    rig.fill(Rig::get("number"), ":1\r\n");
    CHECK(rig.segment.get("number") == "(miss)");
}

TEST_CASE("segment: whatever voids a reply voids it there") {
    Rig rig;
    const auto fill = [&rig] {
        rig.fill(Rig::get("k"), "$1\r\nv\r\n");
        rig.fill(Rig::part("k"), "$1\r\nv\r\n");
        REQUIRE(rig.segment.get("k") == "v");
    };
    fill();
    rig.cache.invalidate("k", InvalidationCause::Push, rig.now);
    CHECK(rig.segment.get("k") == "(miss)");
    fill();
    const auto write = rig.cache.begin_write("k", rig.now);
    CHECK(rig.segment.get("k") == "(miss)");
    rig.cache.end_write(write);
    fill();
    rig.cache.clear(InvalidationCause::Flush, rig.now);
    CHECK(rig.segment.get("k") == "(stale)");
    fill();
    const auto barrier = rig.cache.begin_barrier(rig.now);
    CHECK(rig.segment.get("k") == "(stale)");
    rig.cache.end_write(barrier);
    fill();
    rig.cache.suspend_source(rig.source, rig.now);
    CHECK(rig.segment.get("k") == "(stale)");
    rig.cache.renew_source(rig.source, rig.now);
    CHECK(rig.segment.get("k") == "(stale)");
    rig.cache.renew_source(rig.source, rig.now + 1);
    CHECK(rig.segment.get("k") == "v");
    rig.cache.close_source(rig.source);
    CHECK(rig.segment.get("k") == "(stale)");
    rig.source = rig.cache.open_source(rig.now);
    CHECK(rig.segment.get("k") == "(stale)");
    fill();
}

TEST_CASE("segment: while the near cache rests, or somebody monitors, nothing is served") {
    Rig rig;
    rig.fill(Rig::get("k"), "$1\r\nv\r\n");
    rig.cache.add_monitor();
    CHECK(rig.segment.get("k") == "(off)");
    rig.cache.suspend(rig.now);
    rig.cache.suspend(rig.now);
    rig.cache.remove_monitor();
    CHECK(rig.segment.get("k") == "(off)");
    rig.cache.resume();
    CHECK(rig.segment.get("k") == "(miss)");
    rig.fill(Rig::get("k"), "$1\r\nw\r\n");
    CHECK(rig.segment.get("k") == "w");
}

TEST_CASE("segment: a slot that moved is void, and what is stored in the same tick stays out") {
    Rig rig;
    rig.fill(Rig::get("k"), "$1\r\nv\r\n");
    const std::array<uint16_t, 1> slots{7};
    rig.cache.void_slots(
        slots, [](std::string_view) { return uint16_t{7}; }, rig.now);
    CHECK(rig.segment.get("k") == "(miss)");
    rig.fill(Rig::get("k"), "$1\r\nw\r\n");
    CHECK(rig.segment.get("k") == "(miss)");
    rig.now += 2 * kItemTickMs;
    rig.fill(Rig::get("k"), "$1\r\nw\r\n");
    CHECK(rig.segment.get("k") == "w");
}

TEST_CASE("segment: it has no later deadline than the near cache") {
    Rig rig;
    const auto ticket = rig.cache.begin_fill(Rig::get("k"), rig.source);
    rig.cache.commit(ticket, "$1\r\nv\r\n", rig.now + 5 * kItemTickMs, rig.now);
    CHECK(rig.segment.get("k") == "v");
    rig.cache.check_invariants();
    while (SegmentRig::boot_ms() < rig.now + 5 * kItemTickMs) {
    }
    CHECK(rig.segment.get("k") == "(stale)");
    CHECK(rig.cache.find(Rig::get("k"), SegmentRig::boot_ms()).outcome == Outcome::Miss);
}

TEST_CASE("segment: a new one knows which sources are proven, and has nothing of the former") {
    Rig rig;
    rig.fill(Rig::get("k"), "$1\r\nv\r\n");
    rig.cache.shared_replies().end();
    CHECK(rig.segment.get("k") == "(off)");
    rig.fill(Rig::get("l"), "$1\r\nw\r\n");
    SegmentRig next(SharedReplies::kSizeMin);
    rig.cache.shared_replies().begin(next.memory(), {2, 2});
    CHECK(next.get("k") == "(miss)");
    CHECK(rig.cache.find(Rig::get("k"), rig.now).outcome == Outcome::Hit);
    CHECK(next.get("k") == "v");
    CHECK(rig.cache.find(Rig::get("l"), rig.now).outcome == Outcome::Hit);
    CHECK(next.get("l") == "w");
    rig.cache.check_invariants();
    rig.cache.shared_replies().end();
}

TEST_CASE("segment: it is a subset of the near cache after any calls") {
    Rig rig;
    rig.options.memory = size_t{300} << 10;
    std::mt19937 random(3);
    size_t hits = 0;
    for (int i = 0; i < 20'000; ++i) {
        const std::string key = "key:" + std::to_string(random() % 2000);
        const std::string reply =
            "$" + std::to_string(i % 10 == 0 ? 3000 : 5) + "\r\n" +
            (i % 10 == 0 ? std::string(3000, 'x') : std::to_string(10000 + i % 90000)) + "\r\n";
        const auto query = i % 3 == 0 ? Rig::part(key) : Rig::get(key);
        switch (random() % 40) {
            case 0:
                rig.cache.invalidate(key, InvalidationCause::Push, rig.now);
                break;
            case 1:
                rig.cache.end_write(rig.cache.begin_write(key, rig.now));
                break;
            case 2:
                if (random() % 20 == 0) rig.cache.clear(InvalidationCause::Asked, rig.now);
                break;
            case 3:
                rig.cache.sweep(50, rig.now);
                break;
            case 4:
                rig.cache.close_source(rig.source);
                rig.source = rig.cache.open_source(rig.now);
                break;
            default:
                if (rig.cache.find(query, rig.now).outcome != Outcome::Hit) rig.fill(query, reply);
        }
        hits += rig.segment.mget(key).front() == '(' ? 0 : 1;
        if (i % 50 == 0) rig.cache.check_invariants();
    }
    CHECK(hits > 5000);
    CHECK(rig.metrics.near_cache_evictions_total > 100);
}

}  // namespace nearkey::near_cache_segment_test
