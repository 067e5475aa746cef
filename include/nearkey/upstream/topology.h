// Decides which server is asked: the one that the target leads to, as long as it is the primary
// there.
// Turns the node to another one when a reload named another URL, password or certificate, or when
// the upstream's name leads elsewhere since a failover.
//
//   try_target ──▶ a connection of its own asks the new one ──PONG──▶ on_target_proven
//   adopt_target: ready connections retire, others are redirected with all that waits in them
//
//   a heartbeat says "replica", -REDIRECT ──▶ every shared connection is made anew ──▶ on_demoted
//   -READONLY, -UNBLOCKED ──▶ a heartbeat ──replica──▶ on_demoted
//   on_demoted ──▶ seek_primary: dialled once more, or where a Sentinel says; adopted if a primary
//   answers. Nothing is dialled for a script that says READONLY. Told at most once in
//   upstream.backoff_max_ms, for as long as a replica answers where a primary did.
//
// No request in flight to a former server that serves on is lost, and nobody waits longer than
// before:
//   - A shared connection that is ready answers what it owes and takes nothing more; each session
//     leaves it as soon as it is owed nothing. Then it is closed.
//   - A lease stays with its session for as long as that has state on it (a transaction, a tunnel,
//     a blocking command), and is given up after upstream.drain_timeout_ms if the new upstream is
//     another server: a subscriber that stayed would hear nothing that is published on the new one.
//   - What waits for a connection that is not ready was never sent: the new one gets it.
// All connections to one that is no primary any more are lost at once: reads in flight go again to
// the new one, writes fail as lost.
// No reply of the former server is stored or served from then on: the near cache is cleared, open
// fills are void, and a retired connection is no source. Nor does it count as a sign of life.
//
// Owned by Node, which it tells to turn.
#pragma once

#include "nearkey/loop/loop.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/node_events.h"
#include "nearkey/upstream/target.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace nearkey {

class Connection;
class Node;
class NodeConnections;
class RedirectEvents;
struct ConnectionContext;

class Topology final {
public:
    // The outcome of a trial.
    struct Tried {
        std::unique_ptr<UpstreamTarget> target;  // null: ours, dialled anew for its primary
        std::unique_ptr<Connection> connection;
        Former former = Former::Answers;
        Value hello{};
    };
    // All outlive it.
    Topology(ConnectionContext& context, NodeConnections& connections, Node& node,
             NodeEvents& events);

    // --- a trial ---
    // A target that is to become ours: a connection of its own is dialled until the server is
    // proven, for upstream.connect_timeout_ms; one attempt is enough if it refuses our credentials.
    // Once proven the connection is only kept, until others are proven as well.

    // Tries another upstream, or the same by other credentials or certificates.
    void try_target(std::unique_ptr<UpstreamTarget> target, TargetEvents& events) {
        begin_trial(std::move(target), Former::Answers, events);
    }
    // Seeks the primary after a failover: at `target`, or where the former was (null), for its
    // name, address or socket may lead elsewhere by now.
    void seek_primary(std::unique_ptr<UpstreamTarget> target, TargetEvents& events) {
        begin_trial(std::move(target), Former::IsNoPrimary, events);
    }
    // Ends the trial and closes its connection; nobody is told.
    void forget_target();
    // Adopts the proven target: requests that are not in flight go there from now on. The former
    // answers those in flight, unless it is no primary any more: then its replies are void.
    // REQUIRES: it is proven. If it has been lost again since, or is another by now, it is dialled
    // until it is there.
    void adopt_target();
    // Adopts an unproven one at once: there is nothing to lose while the former does not serve.
    void turn_to(std::unique_ptr<UpstreamTarget> target) {
        turn_unproven(std::move(target), Former::Answers);
    }

    // The server is a node of a cluster, which is used as one from now on. REQUIRES: the node has
    // served nobody.
    void join_cluster(RedirectEvents& redirects);

    // True if it is the trial's, and none of the node's yet.
    bool is_tried(const Connection& connection) const {
        return tried_.connection.get() == &connection;
    }
    // REQUIRES: is_tried(). The trial is of a reload, not the search for a primary.
    bool is_wanted() const { return tried_.former == Former::Answers; }
    // It is ready, was lost or never made, or its login was refused.
    void note_tried_ready(const Value& hello);
    void note_tried_failed(const std::string& reason);
    void note_tried_refused() { trial_deadline_ms_ = 0; }

    // --- the role of the server ---
    // The server of a connection that has become ready is a primary.
    void note_primary() { had_primary_ = true; }
    // A heartbeat has been answered. REQUIRES: its server is what it was when it was dialled.
    void note_role(const Connection& connection);
    // The server's answer to a write makes it doubtful that it is a primary.
    void doubt_role(Connection& connection);
    // The server was a primary, and is a replica now.
    void note_demoted();
    // True while connections are ended for that reason.
    bool is_leaving_replica() const { return is_leaving_replica_; }

private:
    void begin_trial(std::unique_ptr<UpstreamTarget> target, Former former, TargetEvents& events);
    void judge_trial();
    bool is_cluster_unlooked_for() const;
    void refuse_tried(const std::string& reason);
    // REQUIRES: a trial. It is over.
    Tried take_tried();
    void tell_demoted();
    void leave_replica();
    void turn_unproven(std::unique_ptr<UpstreamTarget> target, Former former);
    bool is_due(uint64_t last_ms) const;

    ConnectionContext& context_;
    NodeConnections& connections_;
    Node& node_;
    NodeEvents& events_;

    Tried tried_;  // without a connection: there is no trial
    Timer trial_timer_;
    TargetEvents* trial_events_ = nullptr;  // while there is one
    uint64_t trial_deadline_ms_ = 0;
    std::string trial_failure_;  // the last one
    bool is_proof_told_ = false;

    uint64_t role_doubted_ms_ = 0;   // last; 0: never
    bool is_lease_doubted_ = false;  // it was a lease whose write was refused
    bool is_role_wanted_ = false;    // the next heartbeat must tell, for one of these reasons
    bool is_demoted_ = false;        // it is a replica, which is known and was told
    bool had_primary_ = false;       // it, or another there, was a primary before
    uint64_t demoted_told_ms_ = 0;   // last; 0: never
    // Dials begun before the last demotion, which may lead to the former primary; UINT64_MAX: all.
    uint64_t former_dials_ = UINT64_MAX;
    bool is_leaving_replica_ = false;
};

}  // namespace nearkey
