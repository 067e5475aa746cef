// What is kept for the time when Valkey is away (near_cache.stale_if_unavailable_ms).
#include "nearkey/cache/near_cache.h"

#include <doctest/doctest.h>

#include <string_view>

namespace nearkey::near_cache_stale_test {
namespace {

struct Rig {
    Rig() { options.stale_if_unavailable_ms = 10'000; }
    ~Rig() { cache.check_invariants(); }

    static CacheQuery get(std::string_view key) { return {key, {}, 1, 0}; }
    void fill(std::string_view key, uint64_t deadline_ms) {
        const auto ticket = cache.begin_fill(get(key), source);
        REQUIRE(ticket != 0);
        cache.commit(ticket, "v", deadline_ms, now);
    }
    bool is_stale(std::string_view key) { return cache.find_stale(get(key), now) == "v"; }
    bool is_hit(std::string_view key) {
        return cache.find(get(key), now).outcome == NearCache::Outcome::Hit;
    }

    NearCacheOptions options;
    Metrics metrics;
    NearCache cache{options, metrics, 1};
    uint64_t now = 1000;
    NearCache::SourceId source = cache.open_source(now);
};

}  // namespace

TEST_CASE("stale: what came from a lost connection is kept so long after its last proof") {
    Rig rig;
    rig.fill("k", UINT64_MAX);
    rig.cache.close_source(rig.source);
    CHECK_FALSE(rig.is_hit("k"));
    rig.cache.sweep(10'000, rig.now);
    CHECK(rig.is_stale("k"));
    rig.now += rig.options.stale_if_unavailable_ms - 1;
    CHECK(rig.is_stale("k"));
    ++rig.now;
    CHECK_FALSE(rig.is_stale("k"));
    rig.cache.sweep(10'000, rig.now);
    CHECK(rig.cache.entries() == 0);
}

TEST_CASE("stale: what is unproven is kept as long") {
    Rig rig;
    rig.fill("k", UINT64_MAX);
    rig.now += rig.options.stale_if_unavailable_ms - 1;
    CHECK_FALSE(rig.is_hit("k"));
    CHECK(rig.is_stale("k"));
    ++rig.now;
    CHECK_FALSE(rig.is_stale("k"));
}

TEST_CASE("stale: a key that has expired is not served") {
    Rig rig;
    rig.fill("k", rig.now + 500);
    rig.cache.close_source(rig.source);
    rig.now += 500;
    CHECK_FALSE(rig.is_stale("k"));
}

TEST_CASE("stale: once Valkey is back nothing of it is served, as fresh or as stale") {
    Rig rig;
    rig.fill("k", UINT64_MAX);
    rig.cache.close_source(rig.source);
    rig.cache.drop_lost();
    rig.source = rig.cache.open_source(rig.now);
    CHECK_FALSE(rig.is_stale("k"));
    CHECK_FALSE(rig.is_hit("k"));
    CHECK(rig.cache.entries() == 0);
}

TEST_CASE("stale: own writes invalidate, however they end") {
    Rig rig;
    rig.fill("k", UINT64_MAX);
    rig.fill("j", UINT64_MAX);
    rig.cache.close_source(rig.source);
    const auto write = rig.cache.begin_write("k", rig.now);
    CHECK_FALSE(rig.is_stale("k"));
    rig.cache.end_write(write);
    CHECK_FALSE(rig.is_stale("k"));
    CHECK(rig.is_stale("j"));
    const auto barrier = rig.cache.begin_barrier(rig.now);
    CHECK_FALSE(rig.is_stale("j"));
    rig.cache.end_write(barrier);
    CHECK_FALSE(rig.is_stale("j"));
}

TEST_CASE("stale: everything is void when a connection is lost, and kept; and not when flushed") {
    Rig rig;
    rig.fill("k", UINT64_MAX);
    rig.cache.clear(InvalidationCause::Lost, rig.now);
    CHECK_FALSE(rig.is_hit("k"));
    CHECK(rig.is_stale("k"));
    rig.cache.clear(InvalidationCause::Flush, rig.now);
    CHECK_FALSE(rig.is_stale("k"));
}

TEST_CASE("stale: by default nothing is kept") {
    Rig rig;
    rig.options.stale_if_unavailable_ms = 0;
    rig.fill("k", UINT64_MAX);
    rig.fill("j", UINT64_MAX);
    rig.now += rig.options.max_staleness_ms;
    CHECK_FALSE(rig.is_stale("j"));
    rig.cache.close_source(rig.source);
    CHECK_FALSE(rig.is_stale("k"));
    CHECK_FALSE(rig.is_hit("k"));
    CHECK(rig.cache.entries() == 1);
}

}  // namespace nearkey::near_cache_stale_test
