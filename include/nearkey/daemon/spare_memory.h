// Memory that a burst has left behind, resident and unused: freed memory that malloc keeps, and
// queues with room for the burst.
// Owned by Daemon, looked at once a second. Memory that has been spare for five looks is to be
// given back; sooner, a load that comes in waves would ask for it again. A part that could not be
// given back is tried again later and later, unless more becomes spare.
#pragma once

#include "nearkey/base/metrics.h"

#include <cstddef>
#include <cstdint>

namespace nearkey {

struct MemoryFigures {
    uint64_t resident;   // anonymous pages
    uint64_t accounted;  // as counted by the parts that hold it
};

class SpareMemory {
public:
    // True if there is enough of it, for long enough. Then the caller gives it back, and tells
    // settle() how much is left.
    [[nodiscard]] bool is_due(const MemoryFigures& figures);
    void settle(const MemoryFigures& figures);

    static constexpr int kLooksMin = 5;
    static constexpr int kLooksMax = 640;
    // Less is not worth the page faults of the next burst.
    static constexpr uint64_t kBytesMin = uint64_t{4} << 20;
    static constexpr uint64_t kShareMin = 16;  // a 16th of what is resident

private:
    // Bytes that no part accounts for: the least ever, and the least since the last time.
    uint64_t needed_ = UINT64_MAX;
    uint64_t left_ = UINT64_MAX;
    int looks_ = 0;  // since when there is enough of it
    int looks_wanted_ = kLooksMin;
};

// Resident memory of this process, from /proc/self/statm. 0: it can't be read.
uint64_t resident_bytes();
// `own`: the main thread's, with what all threads share.
MemoryFigures memory_figures(const Metrics& own, const MetricsGroup& all);

}  // namespace nearkey
