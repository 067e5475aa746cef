// The sketch of the hottest keys, fed with reads whose true order is known.
#include "nearkey/session/hot_keys.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <string>

namespace nearkey::hot_keys_test {
namespace {

using Outcome = HotKeys::Outcome;

constexpr uint64_t kBegin = 1000;

struct Reads {
    explicit Reads(HotKeyOptions options = {.entries_max = 256, .show_names = true})
        : keys(options, key_hash) {}

    void read(const std::string& key, Outcome outcome, uint64_t now_ms) {
        if (!keys.is_due(outcome)) return;
        ++noted;
        keys.note(key, outcome, now_ms);
    }
    std::set<std::string> top_names(size_t count, Outcome outcome, uint64_t now_ms) const {
        std::set<std::string> names;
        for (const HotKeys::Entry& entry : keys.top(count, outcome, now_ms))
            names.insert(entry.name);
        return names;
    }

    KeyHash key_hash;
    HotKeys keys;
    size_t noted = 0;
};

// Ranks 0, 1, 2 ... with a probability of 1 / (rank + 1).
class Zipf {
public:
    explicit Zipf(size_t ranks) {
        double sum = 0;
        for (size_t rank = 0; rank < ranks; ++rank)
            sums_.push_back(sum += 1.0 / static_cast<double>(rank + 1));
    }
    size_t next() {
        std::uniform_real_distribution<double> distance(0, sums_.back());
        return static_cast<size_t>(std::lower_bound(sums_.begin(), sums_.end(), distance(random_)) -
                                   sums_.begin());
    }

private:
    std::vector<double> sums_;
    std::mt19937_64 random_{7};
};

TEST_CASE("hot keys: of a skewed load the ten hottest are found, with their rates") {
    Reads reads;
    Zipf zipf(100'000);
    constexpr uint64_t kReads = 2'000'000;
    constexpr uint64_t kSpanMs = 20'000;
    uint64_t now = kBegin;
    for (uint64_t i = 0; i < kReads; ++i) {
        now = kBegin + i * kSpanMs / kReads;
        reads.read("key:" + std::to_string(zipf.next()), Outcome::Hit, now);
    }
    // A sample is random: two neighbours may change places at the end of the list, not more.
    const std::set<std::string> found = reads.top_names(12, Outcome::Hit, now);
    for (int rank = 0; rank < 10; ++rank) {
        CAPTURE(rank);
        CHECK(found.contains("key:" + std::to_string(rank)));
    }
    const auto top = reads.keys.top(2, Outcome::Hit, now);
    REQUIRE(top.size() == 2);
    CHECK(top[0].name == "key:0");
    // 100,000 reads a second, of which the first key has one in 12.1.
    CHECK(top[0].per_second == doctest::Approx(8270).epsilon(0.1));
    CHECK(top[0].error < top[0].count / 10);
    CHECK(reads.top_names(10, Outcome::Miss, now).empty());
    // The sample is thin: that is what the hot path pays.
    CHECK(reads.noted < kReads / 20);
}

TEST_CASE("hot keys: hits and misses are counted apart") {
    Reads reads;
    for (int i = 0; i < 1000; ++i) {
        reads.read("hit", Outcome::Hit, kBegin);
        if (i % 100 == 0) reads.read("missed", Outcome::Miss, kBegin);
    }
    CHECK(reads.top_names(5, Outcome::Hit, kBegin) == std::set<std::string>{"hit"});
    CHECK(reads.top_names(5, Outcome::Miss, kBegin) == std::set<std::string>{"missed"});
    CHECK(reads.keys.top(1, Outcome::Miss, kBegin)[0].count == 10);
}

TEST_CASE("hot keys: yesterday's key gives way to today's, and then is forgotten") {
    Reads reads;
    for (int i = 0; i < 5000; ++i)
        reads.read("yesterday", Outcome::Hit, kBegin);
    uint64_t now = kBegin;
    for (int window = 1; window <= 4; ++window) {
        now = kBegin + static_cast<uint64_t>(window) * HotKeys::kWindowMs;
        for (int i = 0; i < 1000; ++i)
            reads.read("today", Outcome::Hit, now);
    }
    CHECK(reads.keys.top(1, Outcome::Hit, now)[0].name == "today");
    now += 100 * HotKeys::kWindowMs;
    for (int i = 0; i < 100; ++i)
        reads.read("later", Outcome::Hit, now);
    CHECK(reads.top_names(5, Outcome::Hit, now) == std::set<std::string>{"later"});
}

TEST_CASE("hot keys: a pattern in step with the sample hides no key") {
    Reads reads;
    for (int i = 0; i < 400'000; ++i)
        reads.read(std::to_string(i % 16), Outcome::Hit, kBegin);
    const auto top = reads.keys.top(16, Outcome::Hit, kBegin);
    REQUIRE(top.size() == 16);
    for (const HotKeys::Entry& entry : top) {
        CAPTURE(entry.name);
        CHECK(entry.count == doctest::Approx(25'000).epsilon(0.3));
    }
}

TEST_CASE("hot keys: memory is bounded, and no name is kept unless asked for") {
    Reads reads({.entries_max = 16, .show_names = false});
    for (int i = 0; i < 10'000; ++i)
        reads.read("secret:" + std::to_string(i), Outcome::Hit, kBegin);
    const auto top = reads.keys.top(1000, Outcome::Hit, kBegin);
    CHECK(top.size() == 16);
    for (const HotKeys::Entry& entry : top) {
        CHECK(entry.name.empty());
        CHECK(entry.hash != 0);
    }
}

TEST_CASE("key hash: one text a key in this process, another in the next") {
    const KeyHash here;
    const KeyHash elsewhere;
    const std::string shown = here.shown(here.hash("user:1"));
    CHECK(shown.size() == 16);
    CHECK(shown.find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK(shown == here.shown(here.hash("user:1")));
    CHECK(shown != here.shown(here.hash("user:2")));
    CHECK(shown != elsewhere.shown(elsewhere.hash("user:1")));
    CHECK(here.shown(0).empty());
    CHECK(here.hash("") != 0);
}

}  // namespace
}  // namespace nearkey::hot_keys_test
