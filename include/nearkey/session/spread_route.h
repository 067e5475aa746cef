// The ways of commands that one node of a cluster can't answer alone: in parts, one for each slot
// of their keys or for each node, over the shared connections.
// Made for one command; it has no state of its own.
// The one rule: before the first part is sent, each can be. A command that must wait, or that no
// connection is left for, has not run in part.
#pragma once

#include "nearkey/dispatch/parts.h"
#include "nearkey/session/desk.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace nearkey {

class SharedRoute;

class SpreadRoute {
public:
    SpreadRoute(Desk& desk, SharedRoute& shared) : desk_(desk), shared_(shared) {}

    // Nothing: the command is of one slot or one node, and goes as every other does.
    std::optional<Executed> forward(const Call& call);

private:
    // The nodes that are asked, each once, and the connections to them.
    struct Asked {
        std::vector<Node*> nodes;
        std::vector<Connection*> connections;
        PartPlan plan;
    };

    std::optional<Executed> forward_by_slot(const Call& call);
    void send_by_slot(const Call& call, const Parts& parts, Asked asked);
    Executed forward_to_each_node(const Call& call);
    std::optional<Executed> pin_all(const Call& call, Asked& asked);

    Desk& desk_;
    SharedRoute& shared_;
};

}  // namespace nearkey
