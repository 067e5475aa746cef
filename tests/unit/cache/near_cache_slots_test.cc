// The near cache's slots, of which each clearing takes one for as long as void entries are left.
#include "nearkey/cache/near_cache.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace nearkey::near_cache_slots_test {

TEST_CASE("near cache: it may be cleared more often than there are slots, and nothing comes back") {
    for (const uint64_t stale_ms : {0, 10'000}) {
        CAPTURE(stale_ms);
        NearCacheOptions options;
        options.stale_if_unavailable_ms = stale_ms;
        Metrics metrics;
        NearCache cache(options, metrics, 1);
        const NearCache::SourceId source = cache.open_source(1000);
        const auto fill = [&](const std::string& key) {
            const NearCache::Ticket ticket = cache.begin_fill({key, {}, 1, 0}, source);
            REQUIRE(ticket != 0);
            cache.commit(ticket, "v", UINT64_MAX, 1000);
        };
        constexpr int kClears = 66'000;
        for (int i = 0; i < kClears; ++i) {
            fill("k" + std::to_string(i));
            cache.clear(stale_ms == 0 ? InvalidationCause::Flush : InvalidationCause::Lost, 1000);
        }
        CHECK(cache.entries() < kClears);
        fill("new");
        CHECK(cache.find({"new", {}, 1, 0}, 1000).outcome == NearCache::Outcome::Hit);
        for (const int i : {0, 1, 65'534, 65'535, kClears - 1}) {
            const std::string key = "k" + std::to_string(i);
            CHECK(cache.find({key, {}, 1, 0}, 1000).outcome == NearCache::Outcome::Miss);
        }
        cache.check_invariants();
    }
}

TEST_CASE("near cache: each cause of an invalidation has its word") {
    std::string words;
    for (int cause = 0; cause <= static_cast<int>(InvalidationCause::Options); ++cause)
        words += std::string(name_of(static_cast<InvalidationCause>(cause))) + " ";
    CHECK(words ==
          "none push flush write barrier lost swapdb fields asked memory upstream options ");
}

}  // namespace nearkey::near_cache_slots_test
