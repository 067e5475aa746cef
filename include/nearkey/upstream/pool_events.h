// What a pool tells of the server as a whole, and of another one that it tries.
// Whoever is told outlives the pool.
#pragma once

#include <cstdint>
#include <string>

namespace nearkey {

// Whether Valkey serves us, why not, and since when (milliseconds on the loop's clock).
struct UpstreamHealth {
    bool is_ready = false;
    std::string reason = "connecting to Valkey for the first time";
    uint64_t since_ms = 0;
};

class PoolEvents {
public:
    virtual void on_health_changed(const UpstreamHealth& health) = 0;
    // Valkey refused our credentials, or we its certificate (or it ours). Whoever knows better ones
    // says so: set_access().
    virtual void on_credentials_refused() = 0;
    // commands() is another table from now on.
    virtual void on_commands_changed() = 0;
    // The server is a replica, and somebody writes: seek_primary() may find another one.
    virtual void on_demoted() {}

protected:
    ~PoolEvents() = default;
};

// Told what came of ConnectionPool::try_target().
class TargetEvents {
public:
    // It serves, as a primary if that was sought: adopt_target() or forget_target().
    virtual void on_target_proven() = 0;
    virtual void on_target_refused(const std::string& reason) = 0;

protected:
    ~TargetEvents() = default;
};

}  // namespace nearkey
