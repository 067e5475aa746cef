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
    const uint64_t requests = metrics_.in_flight + metrics_.queued;
    return {.resident = resident_bytes(),
            .accounted = metrics_.near_cache_bytes + metrics_.client_memory_bytes +
                         metrics_.upstream_unsent_bytes + requests * kRequestBytes +
                         metrics_.clients * kClientBytes};
}

void Daemon::give_back_spare_memory() {
    if (!spare_memory_.is_due(memory_figures())) return;
    clients_->shrink();
    pool_->shrink();
    if (cache_ != nullptr) cache_->shrink();
    malloc_trim(0);
    ++metrics_.memory_given_back_total;
    spare_memory_.settle(memory_figures());
}

}  // namespace nearkey
