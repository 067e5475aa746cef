#include "nearkey/daemon/spare_memory.h"

#include <unistd.h>
#include <algorithm>
#include <fstream>

namespace nearkey {

namespace {

// The least memory of each that is not counted in bytes.
constexpr uint64_t kClientBytes = 700;
constexpr uint64_t kRequestBytes = 128;  // in flight, in queues and tables

uint64_t unaccounted(const MemoryFigures& figures) {
    return figures.resident - std::min(figures.resident, figures.accounted);
}

uint64_t worth_giving_back(const MemoryFigures& figures) {
    return std::max(SpareMemory::kBytesMin, figures.resident / SpareMemory::kShareMin);
}

}  // namespace

bool SpareMemory::is_due(const MemoryFigures& figures) {
    const uint64_t now = unaccounted(figures);
    const uint64_t least = worth_giving_back(figures);
    needed_ = std::min(needed_, now);
    left_ = std::min(left_, now);
    if (now - left_ >= least) looks_wanted_ = kLooksMin;
    looks_ = now - needed_ >= least ? looks_ + 1 : 0;
    return looks_ >= looks_wanted_;
}

void SpareMemory::settle(const MemoryFigures& figures) {
    left_ = unaccounted(figures);
    needed_ = std::min(needed_, left_);
    const bool is_rest_spare = left_ - needed_ >= worth_giving_back(figures);
    looks_wanted_ = is_rest_spare ? std::min(looks_wanted_ * 2, kLooksMax) : kLooksMin;
    looks_ = 0;
}

uint64_t resident_bytes() {
    // In pages: all, resident, and of these the ones of files, which the kernel takes back itself.
    std::ifstream statm("/proc/self/statm");
    uint64_t all = 0;
    uint64_t resident = 0;
    uint64_t of_files = 0;
    statm >> all >> resident >> of_files;
    const uint64_t anonymous = resident - std::min(resident, of_files);
    return anonymous * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

MemoryFigures memory_figures(const Metrics& own, const MetricsGroup& all) {
    const auto total = [&all](Count Metrics::*field) { return all.total(field); };
    const uint64_t requests = total(&Metrics::in_flight) + total(&Metrics::queued);
    return {.resident = resident_bytes(),
            .accounted =
                own.near_cache_bytes + own.shared_bytes + total(&Metrics::client_memory_bytes) -
                total(&Metrics::client_spare_bytes) + total(&Metrics::upstream_unsent_bytes) +
                total(&Metrics::upstream_retained_bytes) +
                total(&Metrics::near_cache_in_flight_bytes) + requests * kRequestBytes +
                total(&Metrics::clients) * kClientBytes};
}

}  // namespace nearkey
