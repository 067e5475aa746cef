// A session in a tunnel: its commands change the connection itself, so it has one to itself, with
// exactly its state. All bytes belong to the client and the server. Owned by Conversation from the
// command that enters it to the end of its connection, of the client, or to RESET.
//
//   passing ──RESET, answered──▶ over, the session goes on without
//           ──the server ends it, or is lost──▶ over, and so is the client
//           ──on_failover, a subscriber that owes nothing──▶ moving: a new lease ──PONG──▶
//             SUBSCRIBE ... ──▶ passing
//
// Behind Sentinels a subscriber moves as well when its connection was lost, as soon as there is a
// primary again, for up to upstream.drain_timeout_ms.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/primary_wait.h"
#include "nearkey/session/subscriptions.h"
#include "nearkey/session/tunnel_reader.h"

#include <memory>
#include <string>
#include <string_view>

namespace nearkey {

// Events that a tunnel tells its session.
class TunnelEvents {
public:
    // go_on() is due.
    virtual void on_tunnel_wait_over() = 0;

protected:
    ~TunnelEvents() = default;
};

class Tunnel {
public:
    enum class End {
        Reset,   // the client asked for it, and goes on
        Client,  // the client ends with it
        Stuck,   // the server has given up a client that takes nothing, and so does nearkey
    };

    // REQUIRES: the lease works, and owes nothing.
    Tunnel(Desk& desk, Lease& lease, TunnelEvents& events,
           std::unique_ptr<Subscriptions> subscriptions);
    ~Tunnel();
    Tunnel(const Tunnel&) = delete;
    Tunnel& operator=(const Tunnel&) = delete;

    // `instead`, unless it is empty, is sent for the command.
    void send(const Call& call, std::string_view instead);
    void send_stand_in(std::string_view bytes);
    // The input is not RESP: the server says what is wrong with it, behind the replies that it
    // owes, and ends the tunnel. `counterpart` is as wrong.
    void refuse_input(std::string_view counterpart);
    // The client sends no more: so does the tunnel, and the server ends it, as it ends a client's
    // own connection.
    void finish_sending();
    void on_bytes(std::string_view bytes);
    // The server has ended it.
    End end();
    // A client that does not read is left to the server's own limits. While memory is short nothing
    // more is read for it.
    void update_reading();
    // The server ends it, once it is not blocked; the client may leave before.
    bool is_left_to_server() const { return is_refused_ || is_resetting_; }
    size_t kept_bytes() const {
        return subscriptions_ == nullptr ? 0 : subscriptions_->memory_bytes();
    }

    // --- to another server
    // It has been used for subscriptions alone, which are known, and is owed nothing.
    bool may_move() const;
    bool is_reading_paused() const { return is_reading_paused_; }
    void move();
    bool on_lease_settled(bool is_refused) { return wait_.on_lease_settled(is_refused); }
    void on_prepared();
    void go_on();
    // After any of these, and on_bytes(): it is to be ended, by who called.
    bool has_failed_to_move() const { return has_failed_to_move_; }

private:
    void dial();
    void note_moved();
    void begin_monitor();
    void end_monitor();
    void fail_to_move(std::string_view why);

    Desk& desk_;
    Lease& lease_;
    TunnelReader reader_;
    std::unique_ptr<Subscriptions> subscriptions_;  // null: its client is no mere subscriber
    std::string last_words_;  // held until the end: the replies to our commands behind RESET
    PrimaryWait wait_;
    bool is_replica_ = false;         // it never is any more
    uint32_t monitors_ = 0;           // MONITORs that may run: it sees what every client runs
    bool is_resetting_ = false;       // our commands behind RESET were sent: the server ends it
    bool is_refused_ = false;         // the server was sent input as wrong as the client's
    bool is_finishing_ = false;       // the client sends no more, and the server knows
    bool is_reading_paused_ = false;  // the client does not read
    bool is_moving_ = false;          // to another server, which has not confirmed all yet
    bool has_failed_to_move_ = false;
};

}  // namespace nearkey
