// Gives back the memory that a burst has left behind.
#include "nearkey/daemon/daemon.h"

#include <malloc.h>

namespace nearkey {

namespace {
// What each takes at least that is not counted in bytes.
constexpr uint64_t kClientBytes = 700;
constexpr uint64_t kRequestBytes = 128;  // in flight, in queues and tables
}  // namespace

MemoryFigures Daemon::memory_figures() const {
    const auto total = [this](Count Metrics::*field) { return all_metrics_.total(field); };
    const uint64_t requests = total(&Metrics::in_flight) + total(&Metrics::queued);
    return {.resident = resident_bytes(),
            .accounted = metrics_.near_cache_bytes + total(&Metrics::client_memory_bytes) -
                         total(&Metrics::client_spare_bytes) +
                         total(&Metrics::upstream_unsent_bytes) +
                         total(&Metrics::upstream_retained_bytes) +
                         total(&Metrics::near_cache_in_flight_bytes) + requests * kRequestBytes +
                         total(&Metrics::clients) * kClientBytes};
}

void Daemon::give_back_spare_memory() {
    if (!spare_memory_.is_due(memory_figures())) return;
    workers_->shrink();
    if (cache_ != nullptr) cache_->shrink();
    malloc_trim(0);
    ++metrics_.memory_given_back_total;
    spare_memory_.settle(memory_figures());
}

}  // namespace nearkey
