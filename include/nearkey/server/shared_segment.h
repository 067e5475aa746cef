// The near cache's shared memory (cache/segment.h): made when nearkey starts, filled once a client
// has been given it, and void for good when it ends.
// Owned by Daemon, on whose thread it is made and ended while the other event loops wait; any of
// them hands it out.
//
//   make ─▶ waiting ──hand_out──▶ active ──end──▶ over: nobody is served from it, and its contents
//     ▲                                             are gone from the memory of those who have it
//     └────────────── the next ─────────────────────┘
//
// The one rule: it ends before anything is true that its readers must not rely on: another
// listener's terms, a successor that accepts clients, the end of the process.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/cache/near_cache.h"
#include "nearkey/loop/shared_memory.h"
#include "nearkey/session/segment_source.h"

#include <cstdint>
#include <memory>
#include <string>

namespace nearkey {

class SharedSegment final : public SegmentSource {
public:
    // All of it outlives this.
    SharedSegment(NearCache& cache, Metrics& metrics, Log& log)
        : cache_(cache), metrics_(metrics), log_(log) {}
    ~SharedSegment() { end(); }

    // Makes one of so many bytes; 0: there is none, since no listener hands it out. `terms`: what
    // its readers rely on, in words. Nothing is done if both are as before.
    void make(uint64_t size, const std::string& terms);
    void end();
    SegmentGrant hand_out() override;

private:
    NearCache& cache_;
    Metrics& metrics_;
    Log& log_;
    std::unique_ptr<SharedMemory> memory_;  // null: there is none
    uint64_t incarnation_ = 0;
    uint64_t size_ = 0;
    std::string terms_;
    std::string why_not_ = "shared memory is off (listener.shared_memory)";
};

}  // namespace nearkey
