// Waits between attempts: never out of bounds, spread over all of them, short again after success.
#include "nearkey/upstream/backoff.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

namespace nearkey::backoff_test {
namespace {

TEST_CASE("backoff: every wait lies between the minimum and a ceiling that doubles") {
    for (uint64_t seed = 1; seed <= 200; ++seed) {
        CAPTURE(seed);
        Backoff backoff(50, 1000, seed);
        for (const uint64_t ceiling_ms : {100, 200, 400, 800, 1000, 1000, 1000}) {
            const uint64_t wait_ms = backoff.next_ms();
            CHECK(wait_ms >= 50);
            CHECK(wait_ms <= ceiling_ms);
        }
    }
}

TEST_CASE("backoff: full jitter, waits of many hosts fall everywhere between the bounds") {
    uint64_t least_ms = UINT64_MAX;
    uint64_t most_ms = 0;
    uint64_t in_lower_half = 0;
    for (uint64_t seed = 1; seed <= 1000; ++seed) {
        Backoff backoff(50, 1000, seed * 7919);
        for (int i = 0; i < 6; ++i)
            backoff.next_ms();
        const uint64_t wait_ms = backoff.next_ms();
        least_ms = std::min(least_ms, wait_ms);
        most_ms = std::max(most_ms, wait_ms);
        if (wait_ms < 525) ++in_lower_half;
    }
    CHECK(least_ms < 100);
    CHECK(most_ms > 950);
    CHECK(in_lower_half > 400);
    CHECK(in_lower_half < 600);
}

TEST_CASE("backoff: after reset the first ceiling holds again") {
    for (uint64_t seed = 1; seed <= 200; ++seed) {
        Backoff backoff(50, 1000, seed);
        for (int i = 0; i < 10; ++i)
            backoff.next_ms();
        backoff.reset();
        CHECK(backoff.next_ms() <= 100);
    }
}

TEST_CASE("backoff: the same bound twice is that bound") {
    Backoff backoff(7, 7, 1);
    for (int i = 0; i < 5; ++i)
        CHECK(backoff.next_ms() == 7);
}

TEST_CASE("backoff: the same seed gives the same waits") {
    Backoff one(1, 100'000, 42);
    Backoff other(1, 100'000, 42);
    for (int i = 0; i < 20; ++i)
        CHECK(one.next_ms() == other.next_ms());
}

}  // namespace
}  // namespace nearkey::backoff_test
