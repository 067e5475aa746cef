// When what clients make nearkey hold is too much.
#include "nearkey/session/memory_budget.h"

#include <doctest/doctest.h>

namespace nearkey::memory_budget_test {
namespace {

constexpr uint64_t kMax = 16'000'000;

TEST_CASE("memory budget: all that clients make nearkey hold is counted") {
    Metrics metrics;
    MemoryBudget budget(metrics, kMax);
    CHECK(budget.held() == 0);
    for (Count Metrics::*field :
         {&Metrics::client_memory_bytes, &Metrics::upstream_unsent_bytes,
          &Metrics::upstream_retained_bytes, &Metrics::near_cache_in_flight_bytes})
        metrics.*field = 1000;
    metrics.in_flight = 2;
    metrics.queued = 1;
    metrics.clients = 4;
    const uint64_t held =
        4 * 1000 + 3 * MemoryBudget::kRequestBytes + 4 * MemoryBudget::kClientBytes;
    CHECK(budget.held() == held);
    MetricsGroup all;
    all.add(metrics);
    all.add(metrics);
    CHECK(held_bytes(all) == 2 * held);
}

TEST_CASE("memory budget: first nobody is let in, then reading pauses, then clients are closed") {
    Metrics metrics;
    MemoryBudget budget(metrics, kMax);
    const auto hold = [&](uint64_t bytes) { metrics.client_memory_bytes = bytes; };
    hold(12'000'000);
    CHECK(budget.may_admit());
    hold(12'000'001);
    CHECK_FALSE(budget.may_admit());
    hold(14'000'000);
    CHECK_FALSE(budget.is_short());
    CHECK_FALSE(budget.is_short_of_buffers());
    hold(14'000'001);
    CHECK(budget.is_short());
    CHECK(budget.is_short_of_buffers());
    hold(16'000'000);
    CHECK_FALSE(budget.is_full());
    hold(16'000'001);
    CHECK(budget.is_full());
    hold(13'000'001);
    CHECK_FALSE(budget.may_resume());
    hold(13'000'000);
    CHECK(budget.may_resume());
}

TEST_CASE("memory budget: what is in no buffer leaves less room for buffers") {
    Metrics metrics;
    MemoryBudget budget(metrics, kMax);
    metrics.client_memory_bytes = 13'000'000;
    metrics.in_flight = 3'000;
    CHECK_FALSE(budget.is_short());
    CHECK_FALSE(budget.is_short_of_buffers());
    metrics.upstream_unsent_bytes = 500'000;
    CHECK(budget.is_short_of_buffers());
    metrics.in_flight = 0;
    // What is looked at in between is as of the last count; it counts again before it says so.
    CHECK_FALSE(budget.is_short_of_buffers());
}

TEST_CASE("memory budget: an event loop that holds less than its share is never short") {
    Metrics small;
    Metrics large;
    MetricsGroup all;
    all.add(small);
    all.add(large);
    MemoryBudget budget(small, kMax);
    budget.set_max(kMax, &all, 2);
    large.client_memory_bytes = 2 * kMax;
    small.client_memory_bytes = 7'000'000;
    CHECK_FALSE(budget.is_short());
    CHECK_FALSE(budget.is_full());
    CHECK_FALSE(budget.may_resume());
    small.client_memory_bytes = 6'000'000;
    CHECK(budget.may_resume());
    CHECK_FALSE(budget.may_admit());
    small.client_memory_bytes = 8'000'001;
    CHECK(budget.is_short());
    CHECK(budget.is_full());
    // Others leave room.
    large.client_memory_bytes = 0;
    CHECK_FALSE(budget.is_short());
}

TEST_CASE("memory budget: what alone keeps it from resuming is too much") {
    Metrics metrics;
    const MemoryBudget budget(metrics, kMax);
    CHECK_FALSE(budget.is_too_much(13'000'000));
    CHECK(budget.is_too_much(13'000'001));
}

}  // namespace
}  // namespace nearkey::memory_budget_test
