#include "nearkey/session/memory_budget.h"

namespace nearkey {

void MemoryBudget::set_max(uint64_t bytes_max, const MetricsGroup* all, size_t loops) {
    all_ = all;
    bytes_max_ = bytes_max;
    share_ = bytes_max / loops;
    pause_level_ = static_cast<int64_t>(share_ / 16 * kPauseAt);
    buffered_max_ = 0;
}

bool MemoryBudget::may_admit() const {
    return (all_ == nullptr ? held() : held_bytes(*all_)) <= bytes_max_ / 16 * kAdmitAt;
}

bool MemoryBudget::is_too_much(uint64_t bytes) const {
    return bytes > share_ / 16 * kResumeAt;
}

bool MemoryBudget::is_over_in_all(uint64_t sixteenths) const {
    return all_ == nullptr || held_bytes(*all_) > bytes_max_ / 16 * sixteenths;
}

uint64_t held_bytes(const MetricsGroup& all) {
    const auto total = [&all](Count Metrics::*field) { return all.total(field); };
    const uint64_t requests = total(&Metrics::in_flight) + total(&Metrics::queued);
    return total(&Metrics::client_memory_bytes) + total(&Metrics::upstream_unsent_bytes) +
           total(&Metrics::upstream_retained_bytes) + total(&Metrics::near_cache_in_flight_bytes) +
           requests * MemoryBudget::kRequestBytes +
           total(&Metrics::clients) * MemoryBudget::kClientBytes;
}

}  // namespace nearkey
