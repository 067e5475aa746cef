// Who goes when near_cache.memory is used up, as callers see it.
#include "nearkey/cache/near_cache.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::near_cache_eviction_test {

namespace {

struct SmallCache {
    SmallCache() {
        options.memory = 300'000;
        options.thrash_guard = false;
    }

    NearCacheOptions options;
    Metrics metrics;
    NearCache cache{options, metrics, 1};
    NearCache::SourceId source = cache.open_source(0);

    // Whether it was there. It is stored afterwards.
    bool read(const std::string& key) {
        const CacheQuery query{key, {}, 1, 0};
        if (cache.find(query, 100).outcome == NearCache::Outcome::Hit) return true;
        cache.commit(cache.begin_fill(query, source), std::string(100, 'x'), UINT64_MAX, 100);
        return false;
    }
    int read_all(const std::string& name, int count) {
        int hits = 0;
        for (int i = 0; i < count; ++i)
            hits += read(name + std::to_string(i)) ? 1 : 0;
        return hits;
    }
    ~SmallCache() {
        CHECK(cache.bytes() <= options.memory);
        cache.check_invariants();
    }
};

}  // namespace

TEST_CASE("near cache: a scan of twenty times its size does not push out what is hit") {
    SmallCache cache;
    for (int round = 0; round < 4; ++round)
        cache.read_all("hot", 500);
    cache.read_all("once", 40'000);
    CHECK(cache.metrics.near_cache_evictions_total > 30'000);
    CHECK(cache.read_all("hot", 500) == 500);
}

TEST_CASE("near cache: what comes back soon after it was evicted stays") {
    SmallCache cache;
    for (int round = 0; round < 3; ++round)
        cache.read_all("hot", 1000);
    cache.read_all("first", 3000);
    cache.read_all("back", 100);
    cache.read_all("once", 1000);
    CHECK(cache.read_all("back", 100) == 0);
    cache.read_all("twice", 1000);
    // Not all: what was remembered later may have taken a place.
    CHECK(cache.read_all("back", 100) > 70);
}

TEST_CASE("near cache: a loop of twice its size is hit in part") {
    SmallCache cache;
    for (int round = 0; round < 5; ++round)
        cache.read_all("loop", 3600);
    CHECK(cache.read_all("loop", 3600) > 600);
}

TEST_CASE("near cache: what was hot gives way to what is") {
    SmallCache cache;
    for (int round = 0; round < 5; ++round)
        cache.read_all("old", 1500);
    for (int round = 0; round < 12; ++round)
        cache.read_all("new", 1500);
    CHECK(cache.read_all("new", 1500) > 1400);
}

TEST_CASE("near cache: keys that are invalidated and read again leave no records behind") {
    SmallCache cache;
    cache.options.memory = 10'000'000;
    cache.read("k");
    const size_t once = cache.cache.bytes();
    for (int i = 0; i < 100'000; ++i) {
        cache.cache.invalidate("k", InvalidationCause::Push, 100);
        cache.read("k");
    }
    CHECK(cache.cache.bytes() < once + 1000);
}

}  // namespace nearkey::near_cache_eviction_test
