// One case for each rule of base/sabotage.h that shared memory keeps and that is broken below the
// sessions (nearkey_rule_tests).
#include "nearkey/cache/near_cache.h"

#include "segment_rig.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

namespace nearkey::segment_rules_test {

namespace {

constexpr uint64_t kHour = 3'600'000;
constexpr CacheQuery kGet{"k", {}, 2, 0, Sharing::Get};

struct Rig {
    NearCacheOptions options;
    Metrics metrics;
    SegmentRig segment{SharedReplies::kSizeMin};
    const uint64_t now = SegmentRig::boot_ms();
    NearCache cache{options, metrics, 1};
    NearCache::SourceId source = cache.open_source(now);

    Rig() {
        options.max_staleness_ms = kHour;
        cache.shared_replies().begin(segment.memory(), {1, 1});
        cache.commit(cache.begin_fill(kGet, source), "$1\r\nv\r\n", UINT64_MAX, now);
        REQUIRE(segment.get("k") == "v");
    }
};

}  // namespace

TEST_CASE("rule segment_void: what leaves the near cache leaves the segment") {
    Rig rig;
    rig.cache.invalidate("k", InvalidationCause::Push, rig.now);
    CHECK(rig.segment.get("k") == "(miss)");
}

TEST_CASE("rule segment_source: what came from a closed source is not served") {
    Rig rig;
    rig.cache.close_source(rig.source);
    CHECK(rig.segment.get("k") == "(stale)");
}

TEST_CASE("rule segment_epoch: what is stored of a slot that moved is not served") {
    Rig rig;
    const std::array<uint16_t, 1> slots{7};
    rig.cache.void_slots(
        slots, [](std::string_view) { return uint16_t{7}; }, rig.now);
    CHECK(rig.segment.get("k") == "(miss)");
}

TEST_CASE("rule segment_off: while somebody monitors nothing is served") {
    Rig rig;
    rig.cache.add_monitor();
    CHECK(rig.segment.get("k") == "(off)");
}

// A value that looks like an item comes to lie where one was.
TEST_CASE("rule segment_reuse: an item's entry is gone before its memory is used again") {
    NearCacheOptions options;
    Metrics metrics;
    SharedReplies shared(options, metrics);
    const SegmentRig segment(SharedReplies::kSizeMin);
    const uint64_t now = SegmentRig::boot_ms();
    options.max_staleness_ms = kHour;
    shared.set_source(1, now);
    shared.begin(segment.memory(), {1, 1});
    const auto put = [&](std::string_view key, std::string_view value) {
        shared.put({key, 0, 2}, {value, 0, 1, now + kHour});
    };
    put("first", std::string(80, 'x'));
    put("k", "v");
    REQUIRE(segment.get("k") == "v");
    const uint64_t at = segment.header().items_at + nearkey_segment_item_size(5, 80);
    std::string item(segment.memory().data() + at, nearkey_segment_item_size(1, 1));
    item[sizeof(nearkey_segment_item) + 8] = 'w';
    // Its value begins behind a header and a key.
    const uint64_t ahead = nearkey_segment_item_size(5, 80) - nearkey_segment_item_size(5, 0);
    const std::string fake = std::string(ahead, 'x') + item + std::string(200, 'x');
    for (int i = 10'000; metrics.shared_evictions_total == 0; ++i)
        put(std::to_string(i), fake);
    CHECK(segment.get("k") == "(miss)");
}

}  // namespace nearkey::segment_rules_test
