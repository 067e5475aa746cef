// The sockets to listen on: those configured, and those that our starter has opened for us
// (loop/inherited_sockets.h). An inherited socket is matched to its listener by its address; one
// that no listener names is a listener with the defaults, in place of the default path. The one
// named "admin" (FileDescriptorName=) is the admin server's, the one named "metrics" that of
// server.metrics.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/loop/inherited_sockets.h"

#include <optional>
#include <string>
#include <vector>

namespace nearkey {

struct ListenPlan {
    std::vector<Listener> listeners;
    ListenAddress admin;
    std::optional<ListenAddress> metrics;  // nothing: there is none
};

// The addresses of the inherited sockets; they stay ours, whatever a reload says of the others.
struct ForeignAddresses {
    std::vector<std::string> listeners;
    std::string admin;    // empty: there is none
    std::string metrics;  // the same
};

ForeignAddresses foreign_addresses(const InheritedSockets& inherited);

// REQUIRES: `config` came from load_config() or is {}.
ListenPlan listen_plan(const Config& config, const Environment& environment,
                       const ForeignAddresses& foreign);
ListenVariables listen_variables(const Environment& environment);

}  // namespace nearkey
