#include "nearkey/cache/shared_replies.h"

#include "segment_rig.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

namespace nearkey::shared_replies_test {

namespace {

constexpr size_t kSize = SharedReplies::kSizeMin;
constexpr uint64_t kHour = 3'600'000;

struct Rig {
    NearCacheOptions options;
    Metrics metrics;
    SharedReplies shared{options, metrics};
    SegmentRig segment{kSize};
    const uint64_t now = SegmentRig::boot_ms();

    Rig() {
        options.max_staleness_ms = kHour;
        shared.set_source(1, now);
        shared.begin(segment.memory(), {.hash_seed = 7, .incarnation = 42});
    }
    ~Rig() { shared.check_invariants(); }

    static SharedReplies::Identity id(std::string_view key, uint8_t command = 2) {
        return {key, 0, command};
    }
    void put(std::string_view key, std::string_view value) {
        shared.put(id(key), {value, 0, 1, now + kHour});
    }
    void put_nil(std::string_view key, uint8_t command, uint8_t flags) {
        shared.put(id(key, command), {{}, flags, 1, now + kHour});
    }
};

}  // namespace

TEST_CASE("shared replies: what was put is read, of every size, by its key and database") {
    Rig rig;
    for (size_t size = 0; size <= 40; ++size) {
        const std::string key(size, 'k');
        const std::string value(size, 'v');
        rig.put(key, value);
        CHECK(rig.segment.get(key) == value);
        CHECK(rig.segment.mget(key) == value);
        CHECK(rig.segment.get(key, 1) == "(miss)");
    }
    const std::string largest(NEARKEY_SEGMENT_VALUE_MAX, 'v');
    rig.put("largest", largest);
    CHECK(rig.segment.get("largest") == largest);
    rig.put("too large", largest + "v");
    CHECK(rig.segment.get("too large") == "(miss)");
    rig.put(std::string(NEARKEY_SEGMENT_KEY_MAX + 1, 'k'), "v");
    CHECK(rig.segment.get(std::string(NEARKEY_SEGMENT_KEY_MAX + 1, 'k')) == "(miss)");
    CHECK(rig.metrics.shared_items == 42);
}

TEST_CASE("shared replies: nothing of it is read once it was removed") {
    Rig rig;
    rig.put("k", "v");
    rig.shared.remove(Rig::id("other"));
    CHECK(rig.segment.get("k") == "v");
    // Another command's reply to the same key is not in it.
    rig.shared.remove(Rig::id("k", 3));
    CHECK(rig.segment.get("k") == "v");
    rig.shared.remove(Rig::id("k"));
    CHECK(rig.segment.get("k") == "(miss)");
    CHECK(rig.metrics.shared_items == 0);
}

TEST_CASE("shared replies: MGET's nil is none of GET, whose nil serves both") {
    Rig rig;
    rig.put_nil("k", 4, NEARKEY_SEGMENT_NIL | NEARKEY_SEGMENT_NOT_GET);
    CHECK(rig.segment.mget("k") == "(nil)");
    CHECK(rig.segment.get("k") == "(miss)");
    rig.put_nil("k", 2, NEARKEY_SEGMENT_NIL);
    CHECK(rig.segment.get("k") == "(nil)");
    CHECK(rig.metrics.shared_items == 1);
    // It stays for MGET's, which does not take its place.
    rig.put_nil("k", 4, NEARKEY_SEGMENT_NIL | NEARKEY_SEGMENT_NOT_GET);
    CHECK(rig.segment.get("k") == "(nil)");
    rig.shared.remove(Rig::id("k", 4));
    CHECK(rig.segment.mget("k") == "(nil)");
    rig.shared.remove(Rig::id("k", 2));
    CHECK(rig.segment.mget("k") == "(miss)");
}

TEST_CASE("shared replies: a source that is not proven serves nothing, nor one that is too old") {
    Rig rig;
    rig.put("k", "v");
    rig.shared.set_source(1, 0);
    CHECK(rig.segment.get("k") == "(stale)");
    CHECK(!rig.shared.holds(Rig::id("k")));
    rig.shared.set_source(1, rig.now);
    CHECK(rig.segment.get("k") == "v");
    CHECK(rig.shared.holds(Rig::id("k")));
    rig.options.max_staleness_ms = 1000;
    rig.shared.set_source(1, rig.now - 2000);
    rig.shared.apply_options();
    CHECK(rig.segment.get("k") == "(stale)");
    rig.options.max_staleness_ms = kHour;
    rig.shared.apply_options();
    CHECK(rig.segment.get("k") == "v");
}

TEST_CASE("shared replies: a deadline that is over is one for readers too") {
    Rig rig;
    rig.shared.put(Rig::id("k"), {"v", 0, 1, rig.now});
    CHECK(rig.segment.get("k") == "(stale)");
    rig.shared.put(Rig::id("k"), {"v", 0, 1, rig.now + kHour});
    CHECK(rig.segment.get("k") == "v");
}

TEST_CASE("shared replies: while it is off nothing is served, and afterwards nothing of before") {
    Rig rig;
    rig.put("k", "v");
    rig.shared.off();
    rig.shared.off();
    CHECK(rig.segment.get("k") == "(off)");
    rig.put("k", "w");
    rig.shared.on();
    CHECK(rig.segment.get("k") == "(off)");
    rig.shared.on();
    CHECK(rig.segment.get("k") == "(miss)");
    rig.put("k", "w");
    CHECK(rig.segment.get("k") == "w");
    rig.shared.clear();
    CHECK(rig.segment.get("k") == "(miss)");
    rig.put("k", "x");
    CHECK(rig.segment.get("k") == "x");
    CHECK(rig.metrics.shared_items == 1);
}

TEST_CASE("shared replies: without memory nothing is done, and what is proven is not forgotten") {
    NearCacheOptions options;
    Metrics metrics;
    SharedReplies shared(options, metrics);
    const uint64_t now = SegmentRig::boot_ms();
    options.max_staleness_ms = kHour;
    shared.set_source(3, now);
    shared.off();
    shared.put(Rig::id("k"), {"v", 0, 3, now + kHour});
    shared.remove(Rig::id("k"));
    CHECK(!shared.holds(Rig::id("k")));
    const SegmentRig segment(kSize);
    shared.begin(segment.memory(), {1, 1});
    CHECK(segment.get("k") == "(miss)");
    shared.on();
    shared.put(Rig::id("k"), {"v", 0, 3, now + kHour});
    CHECK(segment.get("k") == "v");
    shared.end();
    CHECK(segment.get("k") == "(off)");
    shared.put(Rig::id("k"), {"w", 0, 3, now + kHour});
    CHECK(metrics.shared_items == 0);
    // The next one begins empty.
    const SegmentRig next(kSize * 2);
    shared.begin(next.memory(), {2, 2});
    CHECK(next.get("k") == "(miss)");
    shared.put(Rig::id("k"), {"w", 0, 3, now + kHour});
    CHECK(next.get("k") == "w");
    CHECK(segment.get("k") == "(off)");
}

TEST_CASE("shared replies: the oldest leave, but those that were hit over a socket") {
    Rig rig;
    const std::string value(1000, 'v');
    rig.put("kept", value);
    rig.put("not kept", value);
    for (int i = 0; i < 5000; ++i) {
        rig.put(std::to_string(i), value);
        if (i % 100 == 0) rig.put("kept", value);
    }
    CHECK(rig.segment.get("kept") == value);
    CHECK(rig.segment.get("not kept") == "(miss)");
    CHECK(rig.segment.get("0") == "(miss)");
    CHECK(rig.segment.get("4999") == value);
    CHECK(rig.metrics.shared_evictions_total > 4000);
    CHECK(rig.metrics.shared_items > 300);
}

TEST_CASE("shared replies: a bucket that is full gives one up") {
    Rig rig;
    // More keys than there are entries, with room for all of them among the items.
    const int count = static_cast<int>(kSize / 512 * NEARKEY_SEGMENT_ENTRIES / 2);
    for (int i = 0; i < count; ++i)
        rig.put(std::to_string(i), "v");
    rig.shared.check_invariants();
    int found = 0;
    for (int i = 0; i < count; ++i)
        found += rig.segment.get(std::to_string(i)) == "v" ? 1 : 0;
    CHECK(found == rig.metrics.shared_items);
    CHECK(found > count / 2);
    CHECK(rig.segment.get(std::to_string(count - 1)) == "v");
}

// Whatever is read was put last, and nothing that was removed; the oracle is a map.
TEST_CASE("shared replies: any order of calls leaves a subset of what was put") {
    Rig rig;
    std::mt19937 random(1);
    std::map<std::string, std::string> model;
    size_t hits = 0;
    for (int i = 0; i < 60'000; ++i) {
        const std::string key = "key:" + std::to_string(random() % 400);
        const auto what = random() % 100;
        if (what < 60) {
            auto [found, is_new] = model.try_emplace(key);
            if (is_new) found->second = std::string(random() % 3000, static_cast<char>(random()));
            rig.put(key, found->second);
        } else if (what < 75) {
            model.erase(key);
            rig.shared.remove(Rig::id(key));
        } else if (what == 75 && random() % 30 == 0) {
            model.clear();
            rig.shared.clear();
        }
        const std::string asked = "key:" + std::to_string(random() % 400);
        const std::string read = rig.segment.get(asked);
        const auto expected = model.find(asked);
        const bool is_right = expected == model.end()
                                  ? read == "(miss)"
                                  : read == "(miss)" || read == expected->second;
        hits += read == "(miss)" ? 0 : 1;
        REQUIRE(is_right);
        if (i % 1000 == 0) rig.shared.check_invariants();
    }
    CHECK(hits > 10'000);
}

}  // namespace nearkey::shared_replies_test
