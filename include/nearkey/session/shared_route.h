// The way over a connection that many clients share. A session is pinned to one at a time, and
// moves to another only when nothing is owed; where a command holds it up, its reads may move on.
// In a cluster it has a pin for each node that it uses, and is owed replies by all of them at once.
// Owned by Conversation.
#pragma once

#include "nearkey/session/cluster_scan.h"
#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/replica_route.h"

#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

class SharedRoute {
public:
    SharedRoute(Desk& desk, Lease& lease) : desk_(desk), lease_(lease), node_(&desk.context.node) {}

    static constexpr std::string_view kNoConnectionLeft =
        "ERR nearkey has no connection left for another database or protocol "
        "(upstream.connections_max)";

    Executed forward(const Call& call);
    // Nothing: connection() may be sent to. Otherwise each of `commands` commands has been
    // answered, or must be tried again.
    std::optional<Executed> pin(const CommandSpec* spec, size_t commands) {
        return is_pinned_well(spec) ? std::nullopt : pin_anew(spec, commands);
    }
    // The same for a node of a cluster.
    std::optional<Executed> pin_to(Node& node, const CommandSpec* spec) {
        turn_to(node);
        return pin(spec, 1);
    }
    // SCAN over all nodes of a cluster. Nothing: it goes as it is.
    std::optional<Executed> scan(const Call& call);
    // The command that waited is over.
    void forget_waiting() {
        if (scan_ != nullptr) scan_->forget_waiting();
    }
    // Takes one to another database, which is the client's once known to exist. Null: none is left.
    Connection* begin_selecting(int database);
    bool is_selecting() const { return selecting_ >= 0; }
    // Returns that database.
    int end_selecting() { return std::exchange(selecting_, -1); }
    Connection* connection() { return connection_; }
    const Connection* connection() const { return connection_; }
    // Leaves all pins. REQUIRES: nothing is owed over them, or the session is ending.
    void leave(const ReplyReceiver& receiver);
    // The server keeps its head waiting: reads alone go over another, in the same order.
    void pass_held_up(ReplyReceiver& receiver);

private:
    // Nothing has to be done before the command is sent.
    bool is_pinned_well(const CommandSpec* spec) const {
        // Nor is a database unsure: a SELECT that fails leaves the connection.
        if (connection_ == nullptr || lease_ || connection_->is_leaving()) return false;
        const InFlight& in_flight = connection_->in_flight();
        const bool is_slow = in_flight.is_congested() || in_flight.is_held_up();
        const bool waits =
            spec != nullptr && spec->waits_in_pause && node_->shared().may_hold_writes();
        return !(waits || is_slow) || desk_.owed() > 0;
    }
    Executed forward_placed(const Call& call);
    std::optional<Executed> read_at_replica(const Call& call);
    void turn_to(Node& node);
    std::optional<Executed> pin_anew(const CommandSpec* spec, size_t commands);
    void leave_slow(const CommandSpec* spec);
    void release();
    void forget_fills();

    struct Pin {
        Node* node;
        Connection* connection;
    };

    Desk& desk_;
    Lease& lease_;
    Node* node_;  // of connection_, and of the one that is acquired next
    Connection* connection_ = nullptr;
    std::vector<Pin> others_;                // of other nodes
    std::unique_ptr<ClusterScan> scan_;      // from the first SCAN of a cluster on
    std::unique_ptr<ReplicaRoute> replica_;  // from the first read on that may go to one
    int selecting_ = -1;                     // the database that a SELECT asks for, on connection_
};

}  // namespace nearkey
