// When memory that nobody has in use is given back.
#include "nearkey/daemon/spare_memory.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace nearkey::spare_memory_test {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Looks until it is due: how often.
int looks_until_due(SpareMemory& spare, const MemoryFigures& figures, int looks_max) {
    for (int looks = 1; looks <= looks_max; ++looks) {
        if (spare.is_due(figures)) return looks;
    }
    return 0;
}

}  // namespace

TEST_CASE("spare memory: what nobody accounts for is given back after five looks") {
    SpareMemory spare;
    CHECK_FALSE(spare.is_due({10 * kMiB, 2 * kMiB}));
    CHECK(looks_until_due(spare, {300 * kMiB, 2 * kMiB}, 10) == SpareMemory::kLooksMin);
    spare.settle({11 * kMiB, 2 * kMiB});
    CHECK(looks_until_due(spare, {11 * kMiB, 2 * kMiB}, 20) == 0);
}

TEST_CASE("spare memory: what is in use is not, until it is not any more") {
    SpareMemory spare;
    CHECK_FALSE(spare.is_due({10 * kMiB, 0}));
    CHECK(looks_until_due(spare, {310 * kMiB, 300 * kMiB}, 20) == 0);
    CHECK(looks_until_due(spare, {310 * kMiB, 100 * kMiB}, 10) == SpareMemory::kLooksMin);
}

TEST_CASE("spare memory: a load that comes in waves keeps its memory") {
    SpareMemory spare;
    CHECK_FALSE(spare.is_due({10 * kMiB, 0}));
    for (int wave = 0; wave < 10; ++wave) {
        CHECK(looks_until_due(spare, {310 * kMiB, 0}, SpareMemory::kLooksMin - 1) == 0);
        CHECK_FALSE(spare.is_due({310 * kMiB, 300 * kMiB}));
    }
}

TEST_CASE("spare memory: what could not be given back is tried again later and later") {
    SpareMemory spare;
    CHECK_FALSE(spare.is_due({10 * kMiB, 0}));
    int looks = SpareMemory::kLooksMin;
    while (looks < SpareMemory::kLooksMax) {
        CHECK(looks_until_due(spare, {20 * kMiB, 0}, 1000) == looks);
        spare.settle({20 * kMiB, 0});
        looks = std::min(looks * 2, SpareMemory::kLooksMax);
    }
    CHECK(looks_until_due(spare, {20 * kMiB, 0}, 1000) == SpareMemory::kLooksMax);
    spare.settle({20 * kMiB, 0});
    // More of it.
    CHECK(looks_until_due(spare, {25 * kMiB, 0}, 10) == SpareMemory::kLooksMin);
    spare.settle({11 * kMiB, 0});
    CHECK(looks_until_due(spare, {20 * kMiB, 0}, 10) == SpareMemory::kLooksMin);
}

TEST_CASE("spare memory: of a large process a sixteenth does not matter") {
    SpareMemory spare;
    CHECK_FALSE(spare.is_due({10 * kMiB, 0}));
    CHECK(looks_until_due(spare, {1600 * kMiB, 1500 * kMiB}, 20) == 0);
    CHECK(looks_until_due(spare, {1600 * kMiB, 1400 * kMiB}, 20) == SpareMemory::kLooksMin);
}

TEST_CASE("spare memory: what is resident grows with the pages that are written") {
    const uint64_t before = resident_bytes();
    REQUIRE(before > 0);
    const std::vector<char> written(64 * kMiB, 1);
    CHECK(resident_bytes() > before + 60 * kMiB);
    CHECK(written.back() == 1);
}

}  // namespace nearkey::spare_memory_test
