// The memory that clients make nearkey hold, and its limits: shares of limits.memory_max.
// One for each event loop, which has a share of the whole; owned by SessionContext. A loop that
// holds less than its share is never short.
//
//   3/4  nobody is let in any more          13/16  reading goes on
//   7/8  reading pauses for all clients      1     the largest clients are closed
#pragma once

#include "nearkey/base/metrics.h"

#include <cstddef>
#include <cstdint>

namespace nearkey {

class MemoryBudget {
public:
    // Bytes of each client that are in no buffer.
    static constexpr uint64_t kClientBytes = 2048;
    static constexpr uint64_t kRequestBytes = 256;  // in flight, in queues and tables

    MemoryBudget(const Metrics& metrics, uint64_t bytes_max) : metrics_(metrics) {
        set_max(bytes_max, nullptr, 1);
    }
    // `loops` event loops have `bytes_max` together; `all` are their metrics. Null: there is one.
    void set_max(uint64_t bytes_max, const MetricsGroup* all, size_t loops);

    // Counts everything. True: it is too much to read more.
    bool is_short() {
        const uint64_t buffers = buffered();
        const uint64_t held = buffers + rest();
        buffered_max_ = pause_level_ - (held - buffers);
        return held > static_cast<uint64_t>(pause_level_) && is_over_in_all(kPauseAt);
    }
    // The same for memory that grows while replies come and commands are run.
    bool is_short_of_buffers() {
        return static_cast<int64_t>(buffered()) > buffered_max_ && is_short();
    }
    bool is_full() const { return is_over(kFullAt); }
    bool may_resume() const { return !is_over(kResumeAt); }
    bool may_admit() const;
    // True if so many bytes alone would keep it from resuming.
    bool is_too_much(uint64_t bytes) const;
    uint64_t held() const { return buffered() + rest(); }
    uint64_t share() const { return share_; }

private:
    // Sixteenths.
    static constexpr uint64_t kAdmitAt = 12;
    static constexpr uint64_t kResumeAt = 13;
    static constexpr uint64_t kPauseAt = 14;
    static constexpr uint64_t kFullAt = 16;

    uint64_t buffered() const {
        return metrics_.client_memory_bytes + metrics_.upstream_unsent_bytes;
    }
    uint64_t rest() const {
        return metrics_.upstream_retained_bytes + metrics_.near_cache_in_flight_bytes +
               (metrics_.in_flight + metrics_.queued) * kRequestBytes +
               metrics_.clients * kClientBytes;
    }
    bool is_over(uint64_t sixteenths) const {
        return held() > share_ / 16 * sixteenths && is_over_in_all(sixteenths);
    }
    bool is_over_in_all(uint64_t sixteenths) const;

    const Metrics& metrics_;
    const MetricsGroup* all_ = nullptr;
    uint64_t bytes_max_ = 0;
    uint64_t share_ = 0;
    int64_t pause_level_ = 0;
    int64_t buffered_max_ = 0;  // as of the last count of the rest
};

// The memory that clients make all loops hold.
uint64_t held_bytes(const MetricsGroup& all);

}  // namespace nearkey
