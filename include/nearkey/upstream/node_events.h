// Events of a node about its server as a whole, and about another one that it tries.
// The receivers outlive the node.
#pragma once

#include <cstdint>
#include <string>

namespace nearkey {

// Says whether Valkey serves us, why not, and since when (milliseconds on the loop's clock).
struct UpstreamHealth {
    bool is_ready = false;
    std::string reason = "connecting to Valkey for the first time";
    uint64_t since_ms = 0;
    std::string degraded = {};  // what is not served though it is ready; one line
};

class NodeEvents {
public:
    virtual void on_health_changed(const UpstreamHealth& health) = 0;
    // Valkey refused our credentials, or we its certificate (or it ours). An owner that knows
    // better ones calls set_access().
    virtual void on_credentials_refused() = 0;
    // commands() is another table from now on.
    virtual void on_commands_changed() = 0;
    // The server has become a replica, or is one and somebody writes: seek_primary() may find
    // another one. Said again while it is so, at most once in upstream.backoff_max_ms.
    virtual void on_demoted() {}
    // The server was silent for long, or lost, and says that it is the primary: where Sentinels may
    // know of another one, Node::confirm_primary() is waited for.
    virtual void on_confirmation_wanted() {}
    // It still waits, upstream.unready_after_ms later, and again after as long.
    virtual void on_confirmation_missing() {}
    // With each heartbeat, whether its server answers or not.
    virtual void on_beat() {}

protected:
    ~NodeEvents() = default;
};

// Told the outcome of Topology::try_target().
class TargetEvents {
public:
    // It serves, as a primary if that was sought: adopt_target() or forget_target().
    virtual void on_target_proven() = 0;
    virtual void on_target_refused(const std::string& reason) = 0;

protected:
    ~TargetEvents() = default;
};

}  // namespace nearkey
