// One connection to Valkey: its life, from dial() to close(), and its bytes in order.
// Owned by a list (connections.h) or a trial, at a fixed address. Each of its parts keeps one
// thing: Pipeline the requests, Dialer the way to a ready connection, Probe its server's word on
// itself, Tracking the news of changes, UpstreamTunnel the bytes that pass uncounted.
//
//   Idle ─dial()─▶ Connecting ─▶ Handshaking ─▶ Ready
//     ▲                 │             │           │        Idle: the node decides when to dial
//     └─────────────────┴─────────────┴───────────┘ lost    Closed: for good
//
// A request sent while not Ready waits, in order, until its deadline.
//
// A connection that a session has to itself has an owner, which is told when it is lost. It can
// become a tunnel: from then on nothing is counted, bytes pass in both directions until its end.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/resp/reply_scanner.h"
#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/connection_use.h"
#include "nearkey/upstream/dialer.h"
#include "nearkey/upstream/error_reader.h"
#include "nearkey/upstream/facts.h"
#include "nearkey/upstream/pipeline.h"
#include "nearkey/upstream/probe.h"
#include "nearkey/upstream/tracking.h"
#include "nearkey/upstream/upstream_tunnel.h"

#include <string>
#include <string_view>

namespace nearkey {

enum class ConnectionState { Idle, Connecting, Handshaking, Ready, Closed };

class Connection final : private SocketEvents {
public:
    Connection(ConnectionContext& context, Protocol protocol, int database);
    ~Connection();

    // Sends now, or queues until the connection is ready. The receiver is told the outcome later,
    // but a full queue at once.
    void send(const Request& request) {
        const bool waits = pipeline_.send(request);
        if (waits && state_ == ConnectionState::Idle) context_.events.on_wants_dial(*this);
    }
    // The same for a request that another server did not run. Its time goes on.
    void send_again(const UnsentRequest& request) {
        const bool waits = pipeline_.send_again(request);
        if (waits && state_ == ConnectionState::Idle) context_.events.on_wants_dial(*this);
    }
    // No reply will be delivered to `receiver` any more.
    void forget(const ReplyReceiver& receiver) { pipeline_.forget(receiver); }

    // REQUIRES: ready, and an owner.
    void begin_tunnel();

    void dial();
    // The server takes requests. Called by the dialer.
    void become_ready(const Value& hello, const Pong& pong);
    // Goes to another target from now on, and takes along waiting requests; those in flight are
    // retried there, or fail as lost. Only the owner is told.
    void redirect(UpstreamTarget& target);
    // Owed replies will come; nothing else may be sent. Its bytes no longer count: not as a sign of
    // life, not for the near cache. It is never dialled again. REQUIRES: ready.
    void retire();
    bool is_retired() const { return is_retired_; }
    // True if its users should take another once they are owed nothing.
    bool is_leaving() const { return is_retired_ || state_ == ConnectionState::Closed; }
    // Ends it as if the server had, or for another reason. Reads in flight are sent again, once; if
    // its server is no primary any more, this does not count as that one time.
    void lose(const std::string& reason, ConnectionLoss loss);
    // Closes for good; owed replies fail.
    void close(const std::string& reason);
    // Fails requests that are too old, closes when a tombstone is; gives back much unused room.
    void expire(uint64_t now_ms);
    // True if expire() will have something to do after a call now.
    bool wants_expiry() const;
    // True if it owes nothing but the reply to a heartbeat.
    bool owes_nobody() const;

    Protocol protocol() const { return protocol_; }
    int database() const { return database_; }
    ConnectionState state() const { return state_; }
    bool is_ready() const { return state_ == ConnectionState::Ready; }
    // Since when, on the loop's clock. REQUIRES: ready.
    uint64_t ready_ms() const { return ready_ms_; }
    // The address dialled last; empty: a Unix socket.
    const std::string& address() const { return dialer_.address(); }
    // The host by which the server is known: the one in its certificate, where it has one.
    std::string host() const;
    // ReplyScanner::has_text() of the last reply read.
    bool has_read_text() const { return scanner_.has_text(); }
    ConnectionFacts facts() const;

    ConnectionUse& use() { return use_; }
    const ConnectionUse& use() const { return use_; }
    Pipeline& pipeline() { return pipeline_; }
    const Pipeline& pipeline() const { return pipeline_; }
    const InFlight& in_flight() const { return pipeline_.in_flight(); }
    Dialer& dialer() { return dialer_; }
    Probe& probe() { return probe_; }
    const Probe& probe() const { return probe_; }
    Tracking& tracking() { return tracking_; }
    const Tracking& tracking() const { return tracking_; }
    UpstreamTunnel& tunnel() { return tunnel_; }

private:
    // SocketEvents
    void on_connected() override;
    bool on_bytes(std::string_view bytes) override;
    bool is_reading_large() const override { return in_flight().is_congested(); }
    void on_socket_lost(const std::string& reason) override;
    void on_socket_room() override;

    void note_violation(const std::string& reason);
    void set_state(ConnectionState next);
    // Requests in flight may be sent again; but once only, unless the server is `left`.
    void disconnect(ConnectionState next, bool is_left);

    ConnectionContext& context_;
    const Protocol protocol_;
    const int database_;
    ConnectionState state_ = ConnectionState::Idle;
    uint64_t ready_ms_ = 0;
    bool is_retired_ = false;
    ConnectionUse use_;

    ReplyScanner scanner_;
    uint64_t bytes_received_ = 0;

    Pipeline pipeline_;
    ErrorReader errors_;
    Dialer dialer_;
    Probe probe_;
    Tracking tracking_;
    UpstreamTunnel tunnel_;
};

}  // namespace nearkey
