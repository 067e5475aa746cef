// The time of the next try of a session that must go on at another primary: after a pause, or once
// a lease can be had; and for how long in all. Owned by BlockedWait or Tunnel.
#pragma once

#include "nearkey/loop/loop.h"
#include "nearkey/upstream/node.h"

#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace nearkey {

class PrimaryWait {
public:
    static constexpr std::string_view kNoLease =
        "UPSTREAMDOWN nearkey has no dedicated connection left (upstream.dedicated_max)";

    // `on_over` tells that it is time.
    PrimaryWait(Loop& loop, std::function<void()> on_over)
        : loop_(loop), timer_(loop, std::move(on_over)) {}

    void pause(uint64_t pause_ms) { timer_.start_once(pause_ms); }
    void stop() { timer_.stop(); }
    // Pauses, behind Sentinels, for up to upstream.drain_timeout_ms in all. False: no longer.
    [[nodiscard]] bool pause_for_primary(const Node& node);
    // A primary was found: the time begins anew.
    void restart() { until_ms_ = 0; }

    void wait_for_lease(bool is_waiting) { is_waiting_for_lease_ = is_waiting; }
    // True: one was waited for. The node tells of it in the middle of its work, so what follows is
    // done later.
    bool on_lease_settled(bool is_refused);
    // True if the lease was refused. Nothing is waited for any more.
    bool take_refusal();

private:
    Loop& loop_;
    Timer timer_;
    uint64_t until_ms_ = 0;  // another primary is awaited; 0: it is not
    bool is_waiting_for_lease_ = false;
    bool is_lease_refused_ = false;
};

}  // namespace nearkey
