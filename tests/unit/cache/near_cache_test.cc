#include "nearkey/cache/near_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace nearkey::near_cache_test {

namespace {

using Outcome = NearCache::Outcome;

struct Rig {
    NearCacheOptions options;
    Metrics metrics;
    NearCache cache{options, metrics, 1};
    NearCache::SourceId source = cache.open_source(0);
    uint64_t now = 100;

    static CacheQuery get(std::string_view key) { return {key, {}, 1, 0}; }
    static CacheQuery field(std::string_view key, std::string_view name) {
        return {key, name, 2, 0};
    }
    void fill(const CacheQuery& query, std::string_view reply) {
        const NearCache::Ticket ticket = cache.begin_fill(query, source);
        REQUIRE(ticket != 0);
        cache.commit(ticket, reply, UINT64_MAX, now);
    }
    Outcome outcome(const CacheQuery& query) { return cache.find(query, now).outcome; }
    ~Rig() { cache.check_invariants(); }
};

struct Waiter final : FillWaiter {
    void on_fill_closed() override { ++told; }
    int told = 0;
};

}  // namespace

TEST_CASE("near cache: what was stored is found, by all that its reply depends on") {
    Rig rig;
    rig.fill(Rig::get("k"), "$1\r\nv\r\n");
    rig.fill(Rig::field("h", "a"), "$1\r\n1\r\n");
    rig.fill(Rig::field("h", "b"), "$1\r\n2\r\n");
    CHECK(rig.cache.find(Rig::get("k"), rig.now).reply == "$1\r\nv\r\n");
    CHECK(rig.cache.find(Rig::field("h", "b"), rig.now).reply == "$1\r\n2\r\n");
    CHECK(rig.outcome({"k", {}, 2, 0}) == Outcome::Miss);
    CHECK(rig.outcome({"k", {}, 1, 1}) == Outcome::Miss);
    CHECK(rig.outcome({"k", "x", 1, 0}) == Outcome::Miss);
    CHECK(rig.outcome(Rig::field("h", "c")) == Outcome::Miss);
}

TEST_CASE("C1: a reply whose key was invalidated after it was asked for is not stored") {
    Rig rig;
    const auto ticket = rig.cache.begin_fill(Rig::get("k"), rig.source);
    rig.cache.invalidate("k", InvalidationCause::Push, rig.now);
    rig.cache.commit(ticket, "old", UINT64_MAX, rig.now);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
    CHECK(rig.metrics.near_cache_fills_void_total == 1);
}

TEST_CASE("C2: what came from a lost connection is void, whatever comes in its place") {
    Rig rig;
    rig.fill(Rig::get("k"), "v");
    const auto ticket = rig.cache.begin_fill(Rig::get("other"), rig.source);
    rig.cache.close_source(rig.source);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
    rig.cache.commit(ticket, "v", UINT64_MAX, rig.now);
    CHECK(rig.outcome(Rig::get("other")) == Outcome::Miss);
    rig.source = rig.cache.open_source(rig.now);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
}

TEST_CASE("C3: between a write and its reply its key is neither found nor filled") {
    Rig rig;
    rig.fill(Rig::get("k"), "old");
    const auto before = rig.cache.begin_fill(Rig::field("k", "f"), rig.source);
    const auto first = rig.cache.begin_write("k", rig.now);
    const auto second = rig.cache.begin_write("k", rig.now);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Blocked);
    CHECK(rig.cache.begin_fill(Rig::get("k"), rig.source) == 0);
    rig.cache.commit(before, "old", UINT64_MAX, rig.now);
    rig.cache.end_write(first);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Blocked);
    rig.cache.end_write(second);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
    CHECK(rig.outcome(Rig::field("k", "f")) == Outcome::Miss);
    rig.fill(Rig::get("k"), "new");
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Hit);
}

TEST_CASE("C4: a command whose keys are not known is a write to every key") {
    Rig rig;
    rig.fill(Rig::get("k"), "old");
    const auto before = rig.cache.begin_fill(Rig::get("j"), rig.source);
    const auto write = rig.cache.begin_barrier(rig.now);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Blocked);
    CHECK(rig.cache.begin_fill(Rig::get("k"), rig.source) == 0);
    rig.cache.commit(before, "old", UINT64_MAX, rig.now);
    rig.cache.end_write(write);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
    CHECK(rig.outcome(Rig::get("j")) == Outcome::Miss);
}

TEST_CASE("C5: a write closes the read that others wait for") {
    Rig rig;
    Waiter waiter;
    Waiter gone;
    const auto ticket = rig.cache.begin_fill(Rig::get("k"), rig.source);
    CHECK(rig.cache.find(Rig::get("k"), rig.now).ticket == ticket);
    CHECK(rig.cache.wait(ticket, waiter, nullptr, 0));
    CHECK(rig.cache.wait(ticket, gone, nullptr, 0));
    rig.cache.stop_waiting(ticket, gone, nullptr);
    const auto write = rig.cache.begin_write("k", rig.now);
    CHECK(waiter.told == 1);
    CHECK(gone.told == 0);
    CHECK_FALSE(rig.cache.wait(ticket, waiter, nullptr, 0));
    rig.cache.end_write(write);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
    rig.cache.abandon(ticket);
}

TEST_CASE("near cache: who has waited long for another's read is told, who has not stays") {
    Rig rig;
    Waiter early;
    Waiter late;
    const auto ticket = rig.cache.begin_fill(Rig::get("k"), rig.source);
    CHECK(rig.cache.wait(ticket, early, nullptr, 100));
    CHECK(rig.cache.wait(ticket, late, nullptr, 200));
    rig.cache.end_long_waits(100);
    CHECK(early.told == 0);
    rig.cache.end_long_waits(101);
    CHECK(early.told == 1);
    CHECK(late.told == 0);
    rig.cache.end_long_waits(UINT64_MAX);
    rig.cache.end_long_waits(UINT64_MAX);
    CHECK(early.told == 1);
    CHECK(late.told == 1);
    rig.cache.abandon(ticket);
    CHECK(late.told == 1);
}

TEST_CASE("C6: an entry dies no later than its key, and than near_cache.max_age_ms") {
    Rig rig;
    rig.options.max_staleness_ms = UINT64_MAX;
    const auto ticket = rig.cache.begin_fill(Rig::get("k"), rig.source);
    rig.cache.commit(ticket, "v", rig.now + 1000, rig.now);
    rig.fill(Rig::get("j"), "v");
    rig.now += 950;
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Hit);
    rig.now += 50;
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
    CHECK(rig.outcome(Rig::get("j")) == Outcome::Hit);
    rig.now += rig.options.max_age_ms;
    CHECK(rig.outcome(Rig::get("j")) == Outcome::Miss);
    const auto dying = rig.cache.begin_fill(Rig::get("k"), rig.source);
    rig.cache.commit(dying, "v", rig.now + 3, rig.now);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
}

TEST_CASE("C8: a source that has proven nothing for max_staleness_ms serves nothing") {
    Rig rig;
    rig.fill(Rig::get("k"), "v");
    rig.now = rig.options.max_staleness_ms - 1;
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Hit);
    ++rig.now;
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Unproven);
    rig.cache.renew_source(rig.source, rig.now - 10);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Hit);
}

TEST_CASE("C8: a source that is suspended serves nothing until it is proven by what came later") {
    Rig rig;
    rig.fill(Rig::get("k"), "v");
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Hit);
    rig.now = 100;
    rig.cache.suspend_source(rig.source, rig.now);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Unproven);
    rig.now = 110;
    for (const uint64_t too_early : {99, 100}) {
        rig.cache.renew_source(rig.source, too_early);
        CHECK(rig.outcome(Rig::get("k")) == Outcome::Unproven);
    }
    // Nor does anything else make up for it.
    rig.cache.clear(InvalidationCause::Flush, rig.now);
    rig.fill(Rig::get("k"), "v");
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Unproven);
    rig.cache.renew_source(rig.source, 101);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Hit);
    // One that never was takes back what was proven, too.
    Rig other;
    other.now = 2 * other.options.max_staleness_ms;
    other.cache.renew_source(other.source, other.now);
    other.fill(Rig::get("k"), "v");
    other.cache.renew_source(other.source, 0);
    CHECK(other.outcome(Rig::get("k")) == Outcome::Unproven);
}

TEST_CASE("C9: after a flush nothing is found, and everything can be filled again") {
    Rig rig;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 100; ++i)
            rig.fill(Rig::get("k" + std::to_string(i)), "v");
        rig.cache.clear(InvalidationCause::Flush, rig.now);
        CHECK(rig.outcome(Rig::get("k7")) == Outcome::Miss);
    }
    CHECK(rig.cache.entries() == 99);  // One was looked at; those of before were filled anew.
    rig.cache.sweep(10'000, rig.now);
    CHECK(rig.cache.entries() == 0);
}

TEST_CASE("C11: a key is invalidated in every database, with all its commands") {
    Rig rig;
    rig.fill({"k", {}, 1, 0}, "v");
    rig.fill({"k", {}, 1, 7}, "v");
    rig.fill({"k", {}, 3, 7}, "v");
    rig.fill({"k", "f", 2, 9}, "v");
    rig.cache.invalidate("k", InvalidationCause::Push, rig.now);
    CHECK(rig.cache.entries() == 0);
}

TEST_CASE("C26: a key with 100,000 entries is found and dropped whole") {
    Rig rig;
    for (int i = 0; i < 100'000; ++i)
        rig.fill(Rig::field("h", std::to_string(i)), "v");
    rig.fill(Rig::get("h"), "v");
    CHECK(rig.cache.entries() == 100'001);
    CHECK(rig.outcome(Rig::field("h", "99999")) == Outcome::Hit);
    rig.cache.check_invariants();
    const size_t full = rig.cache.bytes();
    rig.cache.invalidate("h", InvalidationCause::Push, rig.now);
    CHECK(rig.cache.entries() == 0);
    CHECK(rig.cache.bytes() < full / 50);
}

TEST_CASE("near cache: of two reads of the same, only the newer may be stored") {
    Rig rig;
    const auto older = rig.cache.begin_fill(Rig::get("k"), rig.source);
    const auto newer = rig.cache.begin_fill(Rig::get("k"), rig.source);
    rig.cache.commit(newer, "new", UINT64_MAX, rig.now);
    rig.cache.commit(older, "old", UINT64_MAX, rig.now);
    CHECK(rig.cache.find(Rig::get("k"), rig.now).reply == "new");
    // Who reads it again may have seen something newer than what is stored.
    const auto again = rig.cache.begin_fill(Rig::get("k"), rig.source);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Pending);
    rig.cache.abandon(again);
    CHECK(rig.outcome(Rig::get("k")) == Outcome::Miss);
}

TEST_CASE("near cache: a reply above value_max is not stored, and memory is never exceeded") {
    Rig rig;
    rig.options.value_max = 1000;
    rig.options.memory = 200'000;
    rig.fill(Rig::get("large"), std::string(1001, 'x'));
    CHECK(rig.cache.entries() == 0);
    for (int i = 0; i < 5000; ++i) {
        rig.fill(Rig::get("k" + std::to_string(i)),
                 std::string(static_cast<size_t>(i % 1000), 'x'));
        REQUIRE(rig.cache.bytes() <= rig.options.memory);
    }
    CHECK(rig.metrics.near_cache_evictions_total == 5000 - rig.cache.entries());
}

TEST_CASE("near cache: the limit of reads in flight refuses, and counts") {
    Rig rig;
    rig.options.fills_max = 2;
    const auto first = rig.cache.begin_fill(Rig::get("a"), rig.source);
    const auto second = rig.cache.begin_fill(Rig::get("b"), rig.source);
    CHECK(rig.cache.begin_fill(Rig::get("c"), rig.source) == 0);
    CHECK(rig.metrics.near_cache_fills_full_total == 1);
    rig.cache.abandon(first);
    const auto third = rig.cache.begin_fill(Rig::get("c"), rig.source);
    CHECK(third != 0);
    rig.cache.abandon(second);
    rig.cache.abandon(third);
}

TEST_CASE("near cache: it explains what it would answer, and why") {
    Rig rig;
    rig.cache.clear(InvalidationCause::SwapDb, rig.now);
    rig.now += 100;
    CHECK(rig.cache.explain(Rig::get("k"), rig.now).cause == InvalidationCause::SwapDb);
    rig.fill(Rig::get("k"), "v");
    rig.now += 160;
    const auto hit = rig.cache.explain(Rig::get("k"), rig.now);
    CHECK(hit.outcome == Outcome::Hit);
    CHECK(hit.age_ms == 160);
    CHECK(hit.left_ms == rig.options.max_age_ms - 160);
    CHECK(hit.proven_ms == rig.now);
    const auto write = rig.cache.begin_write("k", rig.now);
    rig.now += 5;
    const auto blocked = rig.cache.explain(Rig::get("k"), rig.now);
    CHECK(blocked.outcome == Outcome::Blocked);
    CHECK(blocked.cause == InvalidationCause::Write);
    CHECK(blocked.invalidated_ms == 5);
    rig.cache.end_write(write);
}

TEST_CASE("near cache: only keys that near_cache.keys names, and skip_keys does not, are stored") {
    Rig rig;
    rig.options.keys = {"user:*", "page:*"};
    rig.options.skip_keys = {"*:secret"};
    CHECK(rig.cache.begin_fill(Rig::get("other"), rig.source) == 0);
    CHECK(rig.cache.begin_fill(Rig::get("user:1:secret"), rig.source) == 0);
    CHECK(rig.cache.explain(Rig::get("other"), rig.now).refusal == NearCache::Refusal::Keys);
    rig.fill(Rig::get("user:1"), "$1\r\nv\r\n");
    rig.fill(Rig::get("page:1"), "$1\r\nv\r\n");
    CHECK(rig.outcome(Rig::get("user:1")) == Outcome::Hit);
    CHECK(rig.cache.explain(Rig::get("user:1"), rig.now).refusal == NearCache::Refusal::None);
}

TEST_CASE("C21: a family whose keys are invalidated before they are hit is not stored any more") {
    Rig rig;
    for (uint32_t i = 0; i < ThrashGuard::kMinDrops; ++i) {
        rig.fill(Rig::get("s:1"), "$1\r\nv\r\n");
        rig.cache.invalidate("s:1", InvalidationCause::Push, rig.now);
    }
    CHECK(rig.cache.begin_fill(Rig::get("s:2"), rig.source) == 0);
    const auto explanation = rig.cache.explain(Rig::get("s:2"), rig.now);
    CHECK(explanation.refusal == NearCache::Refusal::Thrash);
    CHECK(explanation.refused_ms == ThrashGuard::kOffMs);
    rig.now += ThrashGuard::kOffMs;
    rig.cache.sweep(1, rig.now);
    rig.fill(Rig::get("s:2"), "$1\r\nv\r\n");
}

TEST_CASE("C21: a family that is hit as often as it is invalidated is stored on") {
    Rig rig;
    for (uint32_t i = 0; i < 3 * ThrashGuard::kMinDrops; ++i) {
        rig.fill(Rig::get("s:1"), "$1\r\nv\r\n");
        CHECK(rig.outcome(Rig::get("s:1")) == Outcome::Hit);
        rig.cache.invalidate("s:1", InvalidationCause::Push, rig.now);
    }
    rig.fill(Rig::get("s:1"), "$1\r\nv\r\n");
}

TEST_CASE("C21: a read whose key changes before its reply is there counts as wasted too") {
    Rig rig;
    for (uint32_t i = 0; i < ThrashGuard::kMinDrops; ++i) {
        const auto ticket = rig.cache.begin_fill(Rig::get("s:1"), rig.source);
        REQUIRE(ticket != 0);
        rig.cache.invalidate("s:1", InvalidationCause::Push, rig.now);
        rig.cache.commit(ticket, "old", UINT64_MAX, rig.now);
    }
    CHECK(rig.cache.begin_fill(Rig::get("s:1"), rig.source) == 0);
}

TEST_CASE("near cache: near_cache.thrash_guard = false leaves every family in") {
    Rig rig;
    rig.options.thrash_guard = false;
    for (uint32_t i = 0; i < 2 * ThrashGuard::kMinDrops; ++i) {
        rig.fill(Rig::get("s:1"), "$1\r\nv\r\n");
        rig.cache.invalidate("s:1", InvalidationCause::Push, rig.now);
    }
    rig.fill(Rig::get("s:1"), "$1\r\nv\r\n");
}

TEST_CASE("near cache: after shrink() no ticket is that of an earlier read") {
    Rig rig;
    std::vector<NearCache::Ticket> tickets;
    for (int i = 0; i < 100; ++i)
        tickets.push_back(rig.cache.begin_fill(Rig::get(std::to_string(i)), rig.source));
    for (size_t i = 10; i < tickets.size(); ++i)
        rig.cache.abandon(tickets[i]);
    rig.cache.shrink();
    CHECK(rig.cache.is_open(tickets[9]));
    Waiter waiter;
    for (int i = 0; i < 100; ++i) {
        const NearCache::Ticket ticket = rig.cache.begin_fill(Rig::get("next"), rig.source);
        CHECK(std::find(tickets.begin(), tickets.end(), ticket) == tickets.end());
        tickets.push_back(ticket);
        // Who waited for an earlier one leaves this one alone.
        CHECK(rig.cache.wait(ticket, waiter, nullptr, 0));
        rig.cache.stop_waiting(tickets[10], waiter, nullptr);
        rig.cache.abandon(ticket);
        CHECK(waiter.told == i + 1);
        rig.cache.shrink();
    }
    for (size_t i = 0; i < 10; ++i)
        rig.cache.commit(tickets[i], "+1", UINT64_MAX, rig.now);
    CHECK(rig.outcome(Rig::get("9")) == Outcome::Hit);
}

TEST_CASE("near cache: what is too long to be stored is not filled") {
    Rig rig;
    const std::string longest(UINT16_MAX, 'k');
    CHECK(StoredReplies::may_hold(longest));
    CHECK_FALSE(StoredReplies::may_hold(longest + "k"));
    rig.fill(Rig::get(longest), "$1\r\nv\r\n");
    CHECK(rig.outcome(Rig::get(longest)) == Outcome::Hit);
    CHECK(rig.cache.begin_fill(Rig::get(longest + "k"), rig.source) == 0);
    CHECK(rig.cache.begin_fill(Rig::field("h", longest + "k"), rig.source) == 0);
}

TEST_CASE("near cache: long names of what is in flight are counted until it is over") {
    Rig rig;
    const std::string name(10'000, 'k');
    const auto fill = rig.cache.begin_fill(Rig::field(name, name), rig.source);
    CHECK(rig.metrics.near_cache_in_flight_bytes == 20'000);
    const NearCache::Write write = rig.cache.begin_write(name, rig.now);
    CHECK(rig.metrics.near_cache_in_flight_bytes == 20'000);
    rig.cache.abandon(fill);
    CHECK(rig.metrics.near_cache_in_flight_bytes == 10'000);
    rig.cache.end_write(write);
    CHECK(rig.metrics.near_cache_in_flight_bytes == 0);
}

}  // namespace nearkey::near_cache_test
