// All connections to Valkey: shared ones for each (protocol, database), dedicated ones on lease.
// Owned by Daemon, outlives the sessions. Knows whether Valkey serves (health), what its commands
// are, and when to dial: while an attempt has failed, one connection at a time proves the server,
// with backoff; the others follow when it is ready.
#pragma once

#include "nearkey/resp/command_table.h"
#include "nearkey/upstream/auditor.h"
#include "nearkey/upstream/backoff.h"
#include "nearkey/upstream/connection.h"
#include "nearkey/upstream/pool_events.h"
#include "nearkey/upstream/proof_rounds.h"
#include "nearkey/upstream/swap_watch.h"
#include "nearkey/upstream/touch_reporter.h"

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace nearkey {

// Waits for a dedicated connection. What it is told it does later, not in the call.
class LeaseWaiter {
public:
    // One is free: ask again.
    virtual void on_lease_possible() = 0;
    // None became free within upstream.queue_timeout_ms.
    virtual void on_lease_refused() = 0;

protected:
    ~LeaseWaiter() = default;
};

struct LeaseWish {
    int protocol;
    int database;
    const ClientIdentity& identity;  // preferred
    // Not null: the connection is a new one, set up as this user.
    const UpstreamCredentials* credentials = nullptr;
};

class ConnectionPool final : private ConnectionEvents, private Deferred {
public:
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        std::span<char> scratch;
        PoolEvents& events;
        NearCache* cache = nullptr;  // null: there is none
        uint64_t backoff_seed = 0;   // should be random
        bool is_first = true;  // of the pools of all event loops: it says what all of them see
    };
    // `options` outlive the pool and may change at any time; apply_options() tells of it.
    ConnectionPool(const Parts& parts, const UpstreamOptions& options,
                   std::unique_ptr<UpstreamTarget> target);
    ~ConnectionPool();

    void start();
    // Before that: other pools store into the same near cache, and these are the proofs of all.
    void share_cache(ProofRounds& all_proofs) { all_proofs_ = &all_proofs; }

    // Another upstream, or the same by other credentials or certificates (pool_target.cc). It is
    // dialled for upstream.connect_timeout_ms; one attempt is enough if it refuses our credentials.
    void try_target(std::unique_ptr<UpstreamTarget> target, TargetEvents& events);
    // The same once more, in case that its name, address or socket leads to a primary by now.
    void seek_primary(TargetEvents& events);
    void forget_target();
    // What is in flight is answered by the former; all else goes to this one from now on. REQUIRES:
    // it is proven. If it has been lost again since, it is dialled until it is there.
    void adopt_target();
    // The same unproven, at once: there is nothing to lose while the former does not serve.
    void turn_to(std::unique_ptr<UpstreamTarget> target);
    // For connections made from now on.
    const UpstreamTarget& target() const { return *target_; }
    // The same server, with the user, the password and the certificates of `fresh`.
    void set_access(UpstreamTarget& fresh);
    void apply_options();

    // The shared connection that a session of this protocol and database is pinned to until
    // release(). Null: upstream.connections_max is reached.
    Connection* acquire(int protocol, int database);
    // Writes are held back by the server (CLIENT PAUSE WRITE), as it seems from three connections
    // of a kind at least that it keeps waiting while it answers others.
    bool may_hold_writes() const { return may_hold_writes_; }
    // One of these connections, where a write waits as well as anywhere: on another one it would
    // only keep reads waiting. Null: there are none.
    Connection* find_held_up(int protocol, int database);
    void release(Connection& connection);
    // From the connection that was acquired, if one was, to another of its kind.
    void change_connection(Connection*& used, Connection& next);

    // A connection for one session alone. Null: upstream.dedicated_max is reached, and the waiter
    // is told later, unless it calls stop_waiting().
    Connection* lease(const LeaseWish& wish, LeaseWaiter& waiter);
    void stop_waiting(const LeaseWaiter& waiter);
    // True: lease() would give one that is ready. Else one is connected for later, if it may be.
    bool prefetch_lease(const LeaseWish& wish);
    // A clean connection is kept for the next lease (upstream.dedicated_idle_max), if it is ready
    // and owes nothing; a doubtful one as well, once it has proven that nothing is left over of
    // what was asked. Every other one is closed.
    enum class LeaseEnd { Clean, Doubtful, Dirty };
    void give_back(Connection& connection, LeaseEnd end);

    // For requests whose replies nobody wants.
    ReplyReceiver& discard() { return discard_; }

    // Whether a connection to this database was ready since any was lost: SELECT needs no proof.
    bool is_known_database(int database) const { return known_databases_.contains(database); }
    const CommandTable& commands() const { return *commands_; }
    // A shared connection that takes a command of our own at once. Null: there is none.
    Connection* find_ready(int protocol, int database);
    // Asks for the table again, at most once a second.
    void refresh_commands();
    // The server's reply to HELLO. REQUIRES: ready once.
    const Value& hello() const { return hello_; }
    // Whether it is a node of a cluster. Then nothing is stored: Valkey does not tell of a key that
    // was not there when its slot moves to another node.
    bool is_cluster() const { return is_cluster_; }
    // The names of the server's configuration parameters; empty while it does not tell us.
    const std::vector<std::string>& parameters() const { return parameters_; }
    const UpstreamHealth& health() const { return health_; }
    // As ACL WHOAMI says it of our connections.
    std::string_view user() const {
        return target_->url.user.empty() ? "default" : std::string_view(target_->url.user);
    }
    uint64_t request_timeout_ms() const { return options_.request_timeout_ms; }
    // The first `limit` of all connections.
    ConnectionList list(size_t limit) const;
    size_t lease_count() const { return leased_.size(); }
    NearCache* cache() { return context_.cache; }
    Latency& latency() { return context_.latency; }
    // REQUIRES: there is a near cache.
    TouchReporter& touch() { return *touch_; }
    Auditor& auditor() { return *auditor_; }
    // Every SWAPDB before this time is known, or none ever will be.
    uint64_t swapdb_known_ms() const { return is_swapdb_hidden_ ? UINT64_MAX : swapdb_proven_ms_; }
    // Before a command whose keys the server is not to track, where are_reads_tracked().
    static constexpr std::string_view kUntracked =
        "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";
    bool are_reads_tracked(const Connection& connection) const;
    // Whether a read is to be answered with what may be untrue by now: it is allowed, and Valkey is
    // away.
    bool serves_stale() const;
    // By whose word what is read over the connection may be stored. kNoSource: by nobody's.
    NearCache::SourceId source_of(const Connection& connection) const;
    // Valkey does not allow us to ask how long a key lives.
    void on_pttl_refused();
    // Whether Valkey tells of changes of the key at all.
    bool is_told_of(std::string_view key) const {
        return is_told_of_all_ || is_told_of_prefix(key);
    }
    // Whether a reply of this protocol may overtake the news of what was changed before it.
    bool may_overtake(int protocol) const {
        return protocol == 2 || is_crowded_ || is_broadcast_ || has_former_ ||
               all_proofs_ != nullptr;
    }
    // A reply that was asked for at `sent_ms` and shows fields of a hash is not served from then
    // on.
    uint64_t fields_deadline_ms(uint64_t sent_ms) const {
        return fields_expire_ ? sent_ms + max_staleness_ms_ : UINT64_MAX;
    }
    // The connection whose source it is, in words.
    std::string describe_source(NearCache::SourceId source) const;
    // Tells the waiter when all that was changed before now is known to the near cache, or is
    // unproven anyway.
    void prove(ProofWaiter& waiter) { all_proofs().prove(waiter); }
    void stop_waiting(const ProofWaiter& waiter) { all_proofs().stop_waiting(waiter); }
    // Of what came over this pool's connections.
    ProofRounds& own_proofs() { return proofs_; }
    // How long a change may stay unseen before it is looked for: beats follow each other no slower.
    void bound_staleness(uint64_t max_staleness_ms);
    // Gives back what its connections have kept for a burst.
    void shrink();

private:
    // Something that the pool itself asks Valkey, one at a time.
    class Question final : public ReplyReceiver {
    public:
        using OnReply = void (ConnectionPool::*)(std::string_view reply);
        // No more than `reply_max` bytes of the reply are kept.
        Question(ConnectionPool& pool, size_t reply_max, OnReply on_reply)
            : pool_(pool), reply_max_(reply_max), on_reply_(on_reply) {}
        void ask(Connection& connection, std::string_view command, RequestKind kind);
        // Asked, and neither answered nor failed.
        bool is_open() const { return is_open_; }
        // No answer to what was asked counts any more.
        void drop();

        void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
        void on_reply_end(uint32_t ticket) override;
        bool on_reply_void(uint32_t) override;
        void on_request_failed(uint32_t ticket, std::string_view error) override;

    private:
        ConnectionPool& pool_;
        const size_t reply_max_;
        const OnReply on_reply_;
        bool is_open_ = false;
        Connection* asked_ = nullptr;  // lives while it is open
        std::string reply_;
    };
    // Each round is a PING over every connection that is told of changes. One that has not answered
    // within a beat holds up nobody any longer: what came of it is suspended instead, in this round
    // and in those that follow until it answers.
    class SourceProofs final : public ProofRounds, public ReplyReceiver {
    public:
        explicit SourceProofs(ConnectionPool& pool) : pool_(pool) {}
        void end_late();
        void shrink();

        void on_reply_bytes(uint32_t, std::string_view) override {}
        void on_reply_end(uint32_t ticket) override { note_answer(ticket); }
        bool on_reply_void(uint32_t) override { return true; }
        void on_request_failed(uint32_t ticket, std::string_view) override { note_answer(ticket); }

    private:
        struct Asked {
            Connection* connection;  // lives until it has answered or failed
            uint32_t ticket;
            bool is_late;
        };

        void ask() override;
        bool ask_again() override;
        void ask(Connection& connection);
        void note_answer(uint32_t ticket);

        ConnectionPool& pool_;
        std::vector<Asked> asked_;
        uint32_t last_ticket_ = 0;
        bool is_asked_again_ = false;
        uint64_t started_ms_ = 0;
    };
    using Key = std::pair<int, int>;  // protocol, database
    using Connections = std::vector<std::unique_ptr<Connection>>;

    // ConnectionEvents
    void on_watch_wanted() override;
    void on_wants_dial(Connection& connection) override;
    void on_ready(Connection& connection, const Value& hello) override;
    void on_dial_failed(Connection& connection, const std::string& reason) override;
    void on_lost(Connection& connection, const std::string& reason) override;
    void on_closed(Connection& connection, const std::string& reason) override;
    void on_auth_refused(Connection& connection, const std::string& reason) override;
    void on_heartbeat(Connection& connection) override;
    void on_database_refused(Connection& connection) override;
    void on_readonly(Connection& connection) override;
    void on_tracking(Connection& connection, std::string_view error) override;
    // Deferred: destroys what is closed.
    void before_sleep() override;

    void dial_next();
    void dial_again(Connection& connection, uint64_t delay_ms);
    bool is_news(const std::string& failure);
    void note_absence(const std::string& reason);
    void refuse_commands(const std::string& reason);
    void ask_for_commands();
    void on_commands(std::string_view reply);
    void on_parameters(std::string_view reply);
    void tick();
    bool wants_ticks();
    void watch();
    void beat();
    void close_unused(uint64_t now_ms);
    void close_retired(Connection& connection, uint64_t now_ms);
    void note_pong(const Pong& pong);
    void update_health();
    void set_health(bool is_ready, std::string reason);
    Connections::iterator find_idle_lease(const LeaseWish& wish);
    bool has_free_lease() const;
    bool may_lease(LeaseWaiter& waiter);
    void grant_leases();
    void close_surplus_leases();
    void expire_lease_queue(uint64_t now_ms);
    size_t shared_count() const;
    [[nodiscard]] bool close_least_needed();
    void relieve_held_up();
    void look_past_held_up(const Connections& group);
    static size_t count_passed(const Connections& group);
    // Another upstream (pool_target.cc)
    void on_role(std::string_view reply);
    void dial_candidate(std::unique_ptr<UpstreamTarget> target, TargetEvents& events);
    void refuse_candidate(const std::string& reason);
    bool is_candidate(const Connection& connection) const;
    void on_candidate_failed(const std::string& reason);
    void judge_candidate();
    void switch_to(std::unique_ptr<UpstreamTarget> target, std::unique_ptr<Connection> primary);
    void leave(Connection& connection, uint64_t retired_until_ms);
    void leave_shared();
    void forget_former();
    void note_retired();
    // While Valkey is away (pool_stale.cc)
    bool is_loading() const { return pong_.refusal.starts_with("LOADING"); }
    bool is_silent() const;
    void watch_absence();
    // Tracking (pool_tracking.cc)
    void note_mode();
    void stop_storing();
    void warn_off(std::string_view reason, std::string_view what);
    bool is_told_of_prefix(std::string_view key) const;
    void start_receiver();
    void track(Connection& connection);
    void track_postponed();
    void track_all(int protocol);
    void untrack_redirected();
    void count_lease();
    void renew_sources();
    uint64_t proven_ms(const Connection& connection) const;
    // Nothing is served of what this connection proves, until it has proven it anew.
    void suspend_sources(const Connection& connection);
    ProofRounds& all_proofs() { return all_proofs_ != nullptr ? *all_proofs_ : proofs_; }
    void ask_for_swapdb();
    void on_stats(std::string_view reply);
    void on_stats_refused(std::string_view reply);
    void note_fields(std::string_view info);
    template <class Visit>
    void for_each_connection(Visit visit);

    Loop& loop_;
    const UpstreamOptions& options_;
    std::unique_ptr<UpstreamTarget> target_;
    Metrics& metrics_;
    Log& log_;
    PoolEvents& events_;
    const bool is_first_;
    SocketReaper reaper_;
    ConnectionContext context_;

    std::map<Key, Connections> shared_;
    bool is_crowded_ = false;        // a group of them has more than one
    bool may_hold_writes_ = false;   // since the last tick
    Connection* primary_ = nullptr;  // in shared_, never closed before the end
    struct QueuedLease {
        LeaseWaiter* waiter;
        uint64_t deadline_ms;
        bool is_granted;  // a free place is kept for it
    };
    Connections leased_;
    Connections idle_leases_;  // the oldest first
    std::deque<QueuedLease> lease_queue_;
    size_t leases_granted_ = 0;

    // A target that is to become ours.
    struct Candidate {
        std::unique_ptr<UpstreamTarget> target;  // null: ours, dialled anew for its primary
        std::unique_ptr<Connection> connection;  // the next primary_
        TargetEvents& events;
        uint64_t deadline_ms;
        std::string failure;  // the last one
        Value hello;
        bool is_told = false;  // that it is proven; from then on it is only kept, until others are
    };
    std::unique_ptr<Candidate> candidate_;  // null: there is none
    Timer candidate_timer_;
    Question role_question_;       // HELLO, which any user may ask in any state
    uint64_t role_asked_ms_ = 0;   // 0: never
    bool role_for_lease_ = false;  // it was a lease whose write was refused
    bool is_demoted_ = false;      // it is a replica, which is known and said
    Connections retired_;          // shared ones to a former target, until they owe nothing
    bool has_former_ = false;

    std::deque<Connection*> wants_dial_;
    Connection* scout_ = nullptr;  // the one that dials while the server is unproven
    bool is_proven_ = false;
    bool stopping_ = false;
    Backoff backoff_;
    Timer dial_timer_;
    std::set<std::string> logged_failures_;  // since Valkey served last: each is said once

    std::vector<Connection*> spare_visit_;  // empty; its memory is for the next visit
    Timer tick_timer_;
    Timer heartbeat_timer_;
    uint64_t last_served_ms_ = 0;  // when the server said last that it runs reads
    Pong pong_;                    // what it said of itself last
    UpstreamHealth health_;

    DiscardReceiver discard_;
    Question commands_question_;  // COMMAND
    std::unique_ptr<CommandTable> commands_;
    std::set<std::string> command_names_;
    bool has_commands_ = false;
    std::string why_unknown_;  // why they are not known yet
    uint64_t commands_asked_ms_ = 0;
    Question parameters_question_;  // CONFIG GET *
    std::vector<std::string> parameters_;
    Value hello_;
    bool is_cluster_ = false;

    // Told of the changes to what RESP2 connections read, which can't be told themselves. Null if
    // there is no near cache.
    std::unique_ptr<Connection> receiver_;
    int64_t receiver_id_ = 0;             // its CLIENT ID
    bool is_tracking_postponed_ = false;  // Valkey was BUSY when it was asked for
    std::string tracking_refusal_;  // what Valkey said when it refused last; empty: it does not
    SourceProofs proofs_;
    ProofRounds* all_proofs_ = nullptr;  // null: proofs_ are all
    bool is_broadcast_ = false;          // near_cache.tracking
    bool is_told_of_all_ = true;         // neither that nor a cluster
    Question stats_question_;            // INFO commandstats, for swaps_
    bool is_swapdb_hidden_ = false;      // Valkey does not tell us its statistics
    uint64_t pttl_refused_ms_ = 0;       // last; 0: never
    bool fields_expire_ = true;          // some hash's fields do, or may
    SwapWatch swaps_;
    uint64_t swapdb_sent_ms_ = 0;
    uint64_t swapdb_proven_ms_ = 0;  // every SWAPDB before this time is known
    uint64_t beat_interval_ms_;
    uint64_t max_staleness_ms_ = 0;
    std::set<int> known_databases_;
    uint32_t silent_ticks_ = 0;             // in a row
    std::unique_ptr<TouchReporter> touch_;  // null if there is no near cache
    std::unique_ptr<Auditor> auditor_;      // the same
};

}  // namespace nearkey
