#include "nearkey/cache/thrash_guard.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::thrash_guard_test {
namespace {

struct Rig {
    // As many different keys of one family.
    void drop(uint32_t times, uint32_t hits, uint64_t now_ms) {
        for (uint32_t i = 0; i < times; ++i)
            guard.on_dropped("session:" + std::to_string(i), hits, now_ms);
    }

    Metrics metrics;
    ThrashGuard guard{metrics};
    static constexpr uint32_t kMin = ThrashGuard::kMinDrops;
    static constexpr uint64_t kWindow = ThrashGuard::kWindowMs;
    static constexpr uint64_t kOff = ThrashGuard::kOffMs;
};

TEST_CASE("thrash guard: a family is a key up to its last colon, numbers taken as one") {
    CHECK(ThrashGuard::family_of("session:ab12") == "session:");
    CHECK(ThrashGuard::family_of("user:17:profile") == "user:#:");
    CHECK(ThrashGuard::family_of("user:18:") == "user:#:");
    CHECK(ThrashGuard::family_of("counter42") == "counter#");
    CHECK(ThrashGuard::family_of("") == "");
}

TEST_CASE("thrash guard: C21: what is dropped before it is hit leaves the cache for a while") {
    Rig rig;
    rig.drop(Rig::kMin - 1, 0, 5);
    CHECK_FALSE(rig.guard.is_off("session:x"));
    rig.drop(1, 0, 6);
    CHECK(rig.guard.is_off("session:x"));
    CHECK(rig.guard.off_for_ms("session:new", 16) == Rig::kOff - 10);
    CHECK_FALSE(rig.guard.is_off("user:x"));
    CHECK(rig.metrics.near_cache_families_off == 1);
    CHECK(rig.metrics.near_cache_family_drops_total == 1);
}

TEST_CASE("thrash guard: what is hit as often as it is dropped stays") {
    Rig rig;
    rig.drop(10 * Rig::kMin, 1, 0);
    CHECK_FALSE(rig.guard.is_off("session:x"));
}

TEST_CASE("thrash guard: drops of different windows are not added up") {
    Rig rig;
    rig.drop(Rig::kMin - 1, 0, 0);
    rig.drop(Rig::kMin - 1, 0, Rig::kWindow);
    CHECK_FALSE(rig.guard.is_off("session:x"));
}

TEST_CASE("thrash guard: it comes back, and is away twice as long if nothing has changed") {
    Rig rig;
    rig.drop(Rig::kMin, 0, 0);
    rig.guard.expire(Rig::kOff - 1);
    CHECK(rig.guard.is_off("session:x"));
    rig.guard.expire(Rig::kOff);
    CHECK_FALSE(rig.guard.is_off("session:x"));
    CHECK(rig.metrics.near_cache_families_off == 0);
    rig.drop(Rig::kMin, 0, Rig::kOff);
    CHECK(rig.guard.off_for_ms("session:x", Rig::kOff) == 2 * Rig::kOff);
    // A quiet window makes it as if nothing had been.
    rig.guard.expire(3 * Rig::kOff);
    rig.drop(Rig::kMin, 0, 3 * Rig::kOff + Rig::kWindow);
    CHECK(rig.guard.off_for_ms("session:x", 3 * Rig::kOff + Rig::kWindow) == Rig::kOff);
}

TEST_CASE("thrash guard: it is never away for longer than its maximum") {
    Rig rig;
    uint64_t now_ms = 0;
    for (int i = 0; i < 10; ++i) {
        rig.drop(Rig::kMin, 0, now_ms);
        const uint64_t off_ms = rig.guard.off_for_ms("session:x", now_ms);
        CHECK(off_ms > 0);
        CHECK(off_ms <= ThrashGuard::kOffMaxMs);
        now_ms += off_ms;
        rig.guard.expire(now_ms);
    }
}

}  // namespace
}  // namespace nearkey::thrash_guard_test
