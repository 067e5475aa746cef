// All that concerns one server: the connections to it, whether it serves, what it is, and which of
// its replies are proven. The parts do most of it; the node tells each of the events of
// connections, and of the time.
// Owned by Worker, outlives the sessions.
#pragma once

#include "nearkey/upstream/dial_queue.h"
#include "nearkey/upstream/health.h"
#include "nearkey/upstream/node_coherence.h"
#include "nearkey/upstream/node_connections.h"
#include "nearkey/upstream/node_events.h"
#include "nearkey/upstream/server_catalog.h"
#include "nearkey/upstream/suspicion.h"
#include "nearkey/upstream/topology.h"

#include <memory>
#include <string>

namespace nearkey {

class Node final : private ConnectionEvents {
public:
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        std::span<char> scratch;
        NodeEvents& events;
        NearCache* cache = nullptr;  // null: there is none
        uint64_t backoff_seed = 0;   // should be random
        bool is_first = true;        // of those of all event loops: it says what all of them see
        RedirectEvents* redirects = nullptr;  // null: it is no node of a cluster
        // Of a cluster: what another node, the seed, knows of its servers. Null: it is none of a
        // cluster, or the seed.
        const ServerCatalog* seed_catalog = nullptr;
        uint16_t number = 0;         // in a cluster
        bool reads_replica = false;  // it is a replica of a cluster, and answers reads alone
    };
    // `options` outlive the node and may change at any time; apply_options() tells of it.
    Node(const Parts& parts, const UpstreamOptions& options,
         std::unique_ptr<UpstreamTarget> target);
    ~Node();

    void start();
    void apply_options();
    // The longest time for which a change may stay unseen: beats follow each other no slower.
    void bound_staleness(uint64_t max_staleness_ms);
    // Gives back memory that its connections have kept for a burst.
    void shrink();

    // The target of connections made from now on.
    const UpstreamTarget& target() const { return *target_; }
    // Keeps the server, with the user, the password and the certificates of `fresh`. Connections
    // that are shared say another password, behind what was sent; leased ones keep theirs.
    void set_access(UpstreamTarget& fresh);
    // Turns to another server, or anew to the one that the target leads to. Proven if its
    // connection is ready. `former_dials`: how many had been dialled when it was known last that
    // the former is no primary.
    void turn_to(Topology::Tried turn, uint64_t former_dials);
    Topology& topology() { return topology_; }
    // Answers on_confirmation_wanted(): by a Sentinel's word the server is still the primary.
    void confirm_primary() { suspicion_.confirm(); }

    NodeConnections& connections() { return connections_; }
    SharedConnections& shared() { return connections_.shared(); }
    Leases& leases() { return connections_.leases(); }
    // For requests whose replies nobody wants.
    ReplyReceiver& discard() { return discard_; }

    const ServerCatalog& catalog() const { return catalog_; }
    // Asks for the commands again, at most once a second.
    void refresh_commands() { catalog_.refresh(connections_.shared().primary()); }
    const UpstreamHealth& health() const { return health_.state(); }
    ServerFacts server() const;
    const UpstreamOptions& options() const { return context_.options; }

    NearCache* cache() { return context_.cache; }
    Latency& latency() { return context_.latency; }
    NodeCoherence& coherence() { return coherence_; }
    // True if reads are answered with replies that may be untrue by now: it is allowed, and Valkey
    // is away.
    bool serves_stale() const { return health_.serves_stale(); }

private:
    // ConnectionEvents
    void on_watch_wanted() override;
    void on_wants_dial(Connection& connection) override { dials_.want(connection); }
    void on_ready(Connection& connection, const Value& hello) override;
    void on_dial_failed(Connection& connection, const std::string& reason) override;
    void on_lost(Connection& connection, const std::string& reason) override;
    void on_closed(Connection& connection, const std::string& reason) override;
    void on_auth_refused(Connection& connection, const std::string& reason) override;
    void on_heartbeat(Connection& connection) override;
    void on_database_refused(Connection& connection) override {
        catalog_.forget_database(connection.database());
    }
    void on_role_doubted(Connection& connection) override;
    void on_demoted(Connection& connection) override;
    void on_trustworthy(Connection& connection) override {
        suspicion_.note_trustworthy(connection);
    }
    void on_tracking(Connection& connection, std::string_view error) override {
        coherence_.sources().note_tracking(connection, error);
    }

    void tick();
    void beat();
    void adjust_beat();
    void on_catalog(const std::string& refusal);
    void note_hello(const Value& hello);
    void note_absence(const std::string& reason);
    void update_health();
    void leave_connections(const UpstreamTarget* left, Former former, uint64_t former_dials);

    std::unique_ptr<UpstreamTarget> target_;
    NodeEvents& events_;
    bool is_stopping_ = false;
    SocketReaper reaper_;
    ConnectionContext context_;
    NodeConnections connections_;
    DialQueue dials_;
    Health health_;
    Suspicion suspicion_;
    ServerCatalog catalog_;
    NodeCoherence coherence_;
    Topology topology_;
    Timer tick_timer_;
    Timer heartbeat_timer_;
    DiscardReceiver discard_;
};

}  // namespace nearkey
