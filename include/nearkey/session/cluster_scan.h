// Carries out SCAN over a cluster: asks the nodes what ScanWalk wants to know, one after the other,
// over the session's shared connections. Owned by SharedRoute.
// The client's command stays in its input meanwhile, and is tried again with each answer; nothing
// else of this client's is run.
#pragma once

#include "nearkey/dispatch/scan_walk.h"
#include "nearkey/session/desk.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class SharedRoute;

class ClusterScan final : private ReplyReceiver {
public:
    ClusterScan(Desk& desk, SharedRoute& shared);

    // Nothing: the server says what is wrong with the cursor.
    std::optional<Executed> forward(const Call& call);
    // No reply is awaited any more. REQUIRES: `connection` is the session's.
    void forget(Connection& connection) {
        connection.forget(*this);
        if (&connection == asked_ && state_ == State::Asking) state_ = State::Idle;
    }
    // The command that waited is over.
    void forget_waiting();

private:
    enum class State : uint8_t { Idle, Ready, Asking, Answered, Waiting };

    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t ticket) override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    // What a node says of a slot is what it is asked for.
    bool follows_redirects() const override { return false; }

    Executed go_on(const Call& call);
    Executed ask(const Call& call);
    std::optional<Executed> take(const Call& call);
    Executed wait();
    void settle(State state);
    Executed answer(const Call& call);
    Executed fail(const Call& call, std::string_view error);

    Desk& desk_;
    SharedRoute& shared_;
    ScanWalk walk_;
    State state_ = State::Idle;
    Timer timer_;
    uint64_t begun_ms_ = 0;
    Node* target_ = nullptr;            // null: the slot's owner is asked
    Connection* asked_ = nullptr;       // last
    uint32_t expected_ = 0;             // replies
    std::vector<std::string> replies_;  // whole, but for the last while it comes
    size_t bytes_ = 0;                  // of these
    std::string failure_;               // there will be no more replies
};

}  // namespace nearkey
