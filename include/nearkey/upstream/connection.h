// One connection to Valkey and the replies it still owes.
// Owned by ConnectionPool, at a fixed address. Replies arrive in the order of send(); the head of
// in_flight_ is being read now. A request whose receiver is gone stays as a tombstone: its reply is
// dropped by position, so no late reply ever reaches someone else.
//
//   Idle ─dial()─▶ Connecting ─▶ Handshaking ─▶ Ready
//     ▲                 │             │           │        Idle: the pool decides when to dial
//     └─────────────────┴─────────────┴───────────┘ lost    Closed: for good
//
// What is sent while not Ready waits in waiting_, in order, until its deadline.
//
// A connection that a session has to itself has an owner, who is told when it is lost. It can
// become a tunnel: from then on nothing is counted, bytes pass in both directions until its end.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/base/ring.h"
#include "nearkey/cache/near_cache.h"
#include "nearkey/loop/resolver.h"
#include "nearkey/resp/reply_scanner.h"
#include "nearkey/upstream/facts.h"
#include "nearkey/upstream/handshake.h"
#include "nearkey/upstream/hiredis_adapter.h"
#include "nearkey/upstream/options.h"
#include "nearkey/upstream/request.h"
#include "nearkey/upstream/target.h"

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nearkey {

class Connection;

// Who has a connection to itself.
class ConnectionOwner {
public:
    // A piece of what the server says in a tunnel; valid during the call.
    virtual void on_tunnel_bytes(std::string_view bytes) = 0;
    // As tell_of_room() asked for.
    virtual void on_tunnel_room() = 0;
    // It was ready; what was in flight has been told of already.
    virtual void on_connection_lost() = 0;

protected:
    ~ConnectionOwner() = default;
};

// What the server knows a client by.
struct ClientIdentity {
    std::string name;
    std::string library;
    std::string library_version;

    bool operator==(const ClientIdentity&) const = default;
};

// What becomes of what waits for a connection that Valkey refuses to set up.
enum class WhenRefused : uint8_t {
    Fail,        // it gets the server's words
    Wait,        // where they are BUSY, which passes: Valkey itself would take it meanwhile
    WaitOrTell,  // the same; and it fails at once where nearkey's own password is refused
};

struct UpstreamCredentials {
    std::string_view user;
    std::string_view password;
};

// What a connection tells the pool.
class ConnectionEvents {
public:
    // It has something to expire, and nobody looks (ConnectionContext::is_watched).
    virtual void on_watch_wanted() = 0;
    // It has something to carry and is not connected; the pool calls dial() when it may.
    virtual void on_wants_dial(Connection& connection) = 0;
    virtual void on_ready(Connection& connection, const Value& hello) = 0;
    virtual void on_dial_failed(Connection& connection, const std::string& reason) = 0;
    // It was ready.
    virtual void on_lost(Connection& connection, const std::string& reason) = 0;
    virtual void on_closed(Connection& connection, const std::string& reason) = 0;
    virtual void on_auth_refused(Connection& connection, const std::string& reason) = 0;
    // What the server said of itself: pong().
    virtual void on_heartbeat(Connection& connection) = 0;
    // A write was refused with READONLY: it is a replica, or somebody's script says so.
    virtual void on_readonly(Connection& connection) = 0;
    // A database that the server no longer has, or does not give us now.
    virtual void on_database_refused(Connection& connection) = 0;
    // Whether Valkey will tell of changes. It says why not in `error`.
    virtual void on_tracking(Connection& connection, std::string_view error) = 0;

protected:
    ~ConnectionEvents() = default;
};

// What all connections of a pool share. Outlives them.
struct ConnectionContext {
    Loop& loop;
    const UpstreamOptions& options;
    UpstreamTarget* target;  // where new connections go
    Metrics& metrics;
    Log& log;
    std::span<char> scratch;
    ConnectionEvents& events;
    SocketReaper& reaper;
    size_t queued_commands = 0;  // in all waiting_ together, bounded by options.queue_*
    size_t queued_bytes = 0;
    NearCache* cache = nullptr;  // null: there is none
    uint64_t heard_ms = 0;       // when anything came from Valkey last
    bool is_watched = false;     // expire() is called again and again, and soon
    Latency latency{loop, metrics.histograms};
};

enum class ConnectionState { Idle, Connecting, Handshaking, Ready, Closed };

class Connection final : public SocketEvents {
public:
    Connection(ConnectionContext& context, int protocol, int database);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // Sends now, or queues until the connection is ready. The receiver is told the outcome later,
    // but a full queue at once.
    void send(const Request& request);
    // The same for a command so large that it is not copied: `bytes` is all of it. REQUIRES: ready.
    void send_owned(const Request& request, Buffer bytes);
    // No reply will be delivered to `receiver` any more.
    void forget(const ReplyReceiver& receiver);

    // Null: nobody's.
    void set_owner(ConnectionOwner* owner) { owner_ = owner; }
    // REQUIRES: ready, and an owner. What is in flight is answered before the tunnel begins.
    void begin_tunnel();
    void send_through(std::string_view bytes);
    // What the server has not taken yet; on_tunnel_room() says once that it is little.
    size_t unsent_bytes() const { return socket_ == nullptr ? 0 : socket_->unsent(); }
    void tell_of_room();
    // Says to the server that nothing more will come; what it still says arrives.
    void finish_sending();
    // The same once it has said nothing for a moment: what it is in the middle of arrives.
    void finish_when_silent();
    // The server was asked to end it: the owner is told, and it is no loss. REQUIRES: a tunnel.
    void expect_end() { is_end_expected_ = true; }
    void pause_reading();
    void resume_reading();

    // Asks Valkey to tell of changes to what is read here, `receiver` (its CLIENT ID; 0: this one)
    // of them. The outcome is on_tracking(). REQUIRES: ready, and a near cache.
    void start_tracking(int64_t receiver);
    // The same, of every key that begins with one of the prefixes, or of every key.
    void start_broadcast(const std::vector<std::string>& prefixes);
    // What was read here is no longer known to be true.
    void stop_tracking();
    // kNoSource: nobody is told of changes to what is read here.
    NearCache::SourceId source() const { return source_; }
    // Its last reply to a PING of ours. REQUIRES: ready.
    const Pong& pong() const { return pong_; }
    // When the last PING was sent that was answered by a server that runs reads (Loop::boot_ms):
    // what this connection is told of changes made before, it has been told.
    uint64_t proven_ms() const { return proven_ms_; }
    // When the PING before that one was sent.
    uint64_t proven_before_ms() const { return proven_before_ms_; }
    // What was dialled last; empty: a Unix socket.
    const std::string& address() const { return address_; }
    // When tracking was asked for: before, there was nothing to be told of.
    uint64_t tracked_since_ms() const { return tracking_sent_ms_; }

    void dial();
    // Is set up as this user, not as that of the upstream's URL. REQUIRES: not dialled yet.
    void use_credentials(const UpstreamCredentials& credentials);
    // The last handshake failed because of the credentials.
    bool is_unauthorized() const { return is_unauthorized_; }
    // Goes to another target from now on, and takes along what waits. REQUIRES: not ready.
    void redirect(UpstreamTarget& target);
    // What is owed will be answered; nothing else is to be sent. What it says no longer counts: not
    // as a sign of life, not for the near cache. It is never dialled again. REQUIRES: ready.
    void retire();
    bool is_retired() const { return is_retired_; }
    // Whoever owes nothing to it takes another.
    bool is_leaving() const { return is_retired_ || state_ == ConnectionState::Closed; }
    // As if the server had ended it.
    void give_up(const std::string& reason) { lose(reason, Loss::Socket); }
    // Closes for good; what is owed fails.
    void close(const std::string& reason);
    void send_heartbeat();
    // What was read may have been more replies than it seemed. Asks for a word that nobody could
    // know before: if it is what comes next, nothing is left over, and the connection can be
    // trusted again; else it is closed. REQUIRES: ready and idle.
    void challenge();
    // Until then.
    bool is_doubtful() const { return !expected_word_.empty(); }
    // Fails what is too old, closes when a tombstone is; gives back much room that is not used.
    void expire(uint64_t now_ms);
    // Gives back what it has kept for as many requests in flight as there were once.
    void shrink();
    // Whether it will have something to do, after it had been called.
    bool wants_expiry();
    // Of requests that are not sent yet, or may be sent again.
    size_t memory_bytes() const;
    size_t owed() const { return in_flight_.size() + waiting_.size(); }

    int protocol() const { return protocol_; }
    int database() const { return database_; }
    ConnectionState state() const { return state_; }
    bool is_ready() const { return state_ == ConnectionState::Ready; }
    bool is_idle() const { return in_flight_.empty() && waiting_.empty(); }
    // But for the reply to a heartbeat.
    bool owes_nobody() const {
        return waiting_.empty() && in_flight_.size() <= (heartbeat_sent_ms_ != 0 ? 1U : 0U);
    }
    bool has_waiting() const { return !waiting_.empty(); }
    // Of the reply that was read last: ReplyScanner::has_text().
    bool has_read_text() const { return scanner_.has_text(); }
    // A large reply is coming: whatever is sent now is answered behind it.
    bool is_congested() const { return reply_bytes_ > kCongestedBytes; }
    // A command waits at the server, as after CLIENT PAUSE WRITE, with the same consequence.
    bool is_held_up() const { return head_waits_; }
    // The server answers others while it keeps this connection's head waiting.
    bool is_passed() const { return head_waits_ && context_.heard_ms > head_waits_since_ms_; }
    // So it does for longer: it is not busy, it keeps it waiting on purpose. Tells each receiver
    // that is owed reads alone, none of which is the head (on_held_up).
    void tell_held_up(uint64_t now_ms);
    // Sends the reads of a receiver that was told over `to` instead, whose replies come in the same
    // order; what is answered here goes to nobody. Once: they are not kept any longer. REQUIRES:
    // `to` is ready.
    void pass(ReplyReceiver& receiver, Connection& to);

    ConnectionFacts facts();

    // Set by the pool: the connection that must exist. It dials again whatever was refused.
    bool is_primary = false;
    bool is_leased = false;
    // Kept by the pool: how many sessions are pinned here, since when none is.
    size_t users = 0;
    uint64_t unused_since_ms = 0;
    uint64_t retired_until_ms = UINT64_MAX;  // then it is given up
    int64_t server_id = 0;                   // its CLIENT ID, while it is ready
    // Said by whoever leases it.
    WhenRefused when_refused = WhenRefused::Fail;
    // As it was told to the server; kept by whoever leases it.
    ClientIdentity identity;

private:
    struct InFlight {
        ReplyReceiver* receiver;  // null: a tombstone
        uint64_t deadline_ms;     // 0: none
        uint32_t ticket;
        uint32_t retained;  // bytes of the request kept in retained_, 0: not to be retried
        uint32_t replies;   // that are still to come
        RequestKind kind;
        bool is_retry;
        RequestTiming timing;
    };
    struct Waiting {
        std::string bytes;
        InFlight request;
        uint64_t queue_deadline_ms;
    };
    // Reads the replies that the connection asks for itself: handshake and heartbeat.
    class OwnReceiver final : public ReplyReceiver {
    public:
        explicit OwnReceiver(Connection& connection) : connection_(connection) {}
        void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
        void on_reply_end(uint32_t ticket) override;
        bool on_reply_void(uint32_t) override { return false; }
        void on_request_failed(uint32_t ticket, std::string_view error) override;

    private:
        Connection& connection_;
        std::string reply_;
    };

    // SocketEvents
    void on_connected() override;
    bool on_bytes(std::string_view bytes) override;
    bool is_reading_large() const override { return is_congested(); }
    void on_socket_lost(const std::string& reason) override;
    void on_socket_room() override;

    void resolve();
    void on_connect_timeout();
    std::string late_peer() const;
    void open_socket(const std::string& address);
    enum class Own : uint32_t { Handshake, Heartbeat, Tracking, Challenge };
    void send_own(Own what, std::string_view bytes);
    void on_own_reply(Own what, std::string_view reply);
    void ask_for_tracking(const std::vector<std::string>& options);
    void on_tracking_reply(const Value& reply);
    void take_push(std::string_view bytes, bool is_end);
    void note_error(std::string_view bytes);
    void begin_handshake();
    void continue_handshake();
    void on_handshake_failed();
    uint64_t patience_ms() const;
    void become_ready();
    InFlight in_flight_entry(const Request& request) const;
    void watch() {
        if (!context_.is_watched) context_.events.on_watch_wanted();
    }
    void transmit(std::string_view bytes, const InFlight& request);
    void queue(std::string_view bytes, const InFlight& request, uint64_t queue_deadline_ms);
    void send_waiting();
    Waiting take_waiting();
    void fail_first_waiting(std::string_view error);
    void fail_waiting(std::string_view error);
    void deliver(std::string_view bytes, bool is_end);
    void fail(const InFlight& request, std::string_view error);
    // Why a connection that was ready is lost.
    enum class Loss { Socket, Mute, Auth, Malformed };
    void lose(const std::string& reason, Loss loss);
    void on_violation(const std::string& reason);
    void on_challenge_reply(std::string_view reply);
    void set_state(ConnectionState next);
    void disconnect(ConnectionState next);
    void retry_or_fail_in_flight();
    void note_latency(const InFlight& request);
    void take_head(const InFlight& head);
    void count_retained();
    void shrink_if_sparse();
    void expire_in_flight(uint64_t now_ms);
    void expire_waiting(uint64_t now_ms);
    void look_at_head(uint64_t now_ms);
    void finish_if_silent(uint64_t now_ms);

    ConnectionContext& context_;
    UpstreamTarget* target_;  // null: retired
    const int protocol_;
    const int database_;
    ConnectionState state_ = ConnectionState::Idle;
    bool is_retired_ = false;

    std::unique_ptr<HiredisSocket> socket_;
    std::unique_ptr<Resolution> resolution_;
    std::string address_;  // what was dialled
    Timer connect_timer_;
    std::optional<Handshake> handshake_;
    std::string busy_words_;  // not empty: the server's, why it is begun anew with each tick
    std::unique_ptr<UpstreamUrl> own_url_;  // with other credentials than target_'s
    bool is_unauthorized_ = false;
    uint64_t dialled_ms_ = 0;

    static constexpr size_t kCongestedBytes = size_t{1} << 20;
    static constexpr uint32_t kHeadWaitsUs = 50'000;
    static constexpr uint64_t kPassedForMs = 50;
    static constexpr uint64_t kTellAgainMs = 100;
    static constexpr uint64_t kSilentMs = 100;

    Ring<InFlight> in_flight_;
    size_t reply_bytes_ = 0;            // so far, of a reply whose end has not come yet
    bool head_waits_ = false;           // no reply has ended for kHeadWaitsUs, nor has one begun
    uint64_t head_waits_since_ms_ = 0;  // when that was seen
    uint32_t answered_us_ = 0;          // when the last reply ended
    uint64_t told_held_up_ms_ = 0;
    size_t expired_ = 0;                // this many at the front can't expire any more
    Buffer retained_;                   // the bytes of retryable requests in flight, in order
    size_t counted_retained_ = 0;
    ReplyScanner scanner_;
    std::deque<Waiting> waiting_;

    ConnectionOwner* owner_ = nullptr;
    bool is_tunnel_ = false;
    bool is_end_expected_ = false;
    uint64_t silent_since_ms_ = 0;  // finish_when_silent(); 0: not asked for
    uint64_t silent_bytes_ = 0;     // bytes_received_ then

    OwnReceiver own_receiver_;
    uint64_t heartbeat_sent_ms_ = 0;  // 0: none is owed
    uint64_t heartbeat_sent_boot_ms_ = 0;
    std::string expected_word_;  // the reply that challenge() waits for; empty: none
    Pong pong_;
    uint64_t ready_ms_ = 0;
    uint64_t bytes_sent_ = 0;
    uint64_t bytes_received_ = 0;
    uint64_t proven_ms_ = 0;
    uint64_t proven_before_ms_ = 0;

    NearCache::SourceId source_ = NearCache::kNoSource;
    uint32_t tracking_asked_ = 0;  // questions whose answer has not come
    uint32_t tracking_void_ = 0;   // so many answers, the next ones, count no more
    uint64_t tracking_sent_ms_ = 0;
    std::string push_;  // the one being received
};

}  // namespace nearkey
