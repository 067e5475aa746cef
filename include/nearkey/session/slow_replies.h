// Requests of one client that took long, whose replies are complete and not yet written: they are
// entered in the slow log once they are. Owned by Session.
#pragma once

#include "nearkey/session/slow_log.h"
#include "nearkey/upstream/latency.h"

#include <cstdint>
#include <vector>

namespace nearkey {

class SlowReplies {
public:
    bool empty() const { return slow_.empty(); }
    // `entry` without its times, and its times so far.
    void add(SlowEntry entry, const RequestTiming& timing, const Latency& latency, SlowLog& log);
    void enter(SlowLog& log);
    void shrink() { slow_.shrink_to_fit(); }

private:
    struct SlowReply {
        SlowEntry entry;
        uint32_t since_us;
    };

    std::vector<SlowReply> slow_;
};

}  // namespace nearkey
