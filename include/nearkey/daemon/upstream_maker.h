// Makes the upstream that a configuration names: the workers' targets, with the secrets that its
// files hold now, and the watch over its Sentinels. Owned by Daemon, as are the parts that use it.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/upstream/sentinel_watch.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nearkey {

class UpstreamMaker {
public:
    // All outlive it.
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        const Environment& environment;
        const std::string& told_password;  // by upstream.password_command
        std::string managed_path;          // of the server that is our child; empty: there is none
    };
    explicit UpstreamMaker(Parts parts) : parts_(std::move(parts)) {}

    bool is_managed() const { return !parts_.managed_path.empty(); }
    // `primary`: for a URL that names Sentinels; empty until one is known. `seeds`: the node of a
    // cluster for each event loop, in place of the first that the URL names; empty: that one.
    // Throws std::runtime_error.
    Workers::Targets make_targets(const Config& config, const Endpoint& primary,
                                  const std::vector<Endpoint>& seeds) const;
    // Null: the URL names no Sentinels.
    std::unique_ptr<SentinelWatch> make_watch(const Config& config) const;

private:
    std::unique_ptr<UpstreamTarget> make_target(const Config& config, const Endpoint& primary,
                                                const Endpoint& seed) const;

    const Parts parts_;
};

// What parts of the daemon are made of. All of it outlives them.
struct DaemonParts {
    Loop& loop;
    Metrics& metrics;  // of the main thread, and of all that is shared
    const MetricsGroup& all_metrics;
    Log& log;
    const SlowLog& slow_log;
    const ConfigSources& sources;
    Config& config;         // in force; Reload changes it
    NearCache* cache;       // null: switched off
    OwnWrites* own_writes;  // null: no listener reads from replicas
    Workers& workers;
    const UpstreamMaker& upstreams;
};

}  // namespace nearkey
