// A connection that a session has to itself, for the time of a command, a transaction or a tunnel;
// and the questions of our own that go over it before the client's command.
// Owned by Conversation.
//
//   none ──take()──▶ held ──answered──▶ end(): kept for the next session, proven first, or closed
//             │ none is free: paused until there is one, or refused after upstream.queue_timeout_ms
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/transaction.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace nearkey {

// Events that a lease tells its session.
class LeaseEvents {
public:
    // A connection that was waited for can be had now; refused: none became free in time. True: it
    // was not for the next command.
    virtual bool on_lease_settled(bool is_refused) = 0;
    // The question before the client's command is answered: take_preparation() has the answer.
    // Never told while it is being asked.
    virtual void on_prepared() = 0;
    // The lease ends with replies to come that are for nobody.
    virtual void forget_replies(Connection& connection) = 0;

protected:
    ~LeaseEvents() = default;
};

// Tells the server who the client is, where the connection's last client was another. `scratch` is
// for the bytes.
void introduce(Connection& connection, const ClientIdentity& client, Node& node,
               std::string& scratch);

class Lease final : private LeaseWaiter, private ReplyReceiver {
public:
    // The answer to a question of our own.
    struct Preparation {
        enum class State : uint8_t { None, Pending, Done };
        State state = State::None;
        std::string error;        // without "-" and line end; empty: the reply was none
        bool has_failed = false;  // there was no reply
        std::string reply{};      // all of it, unless it is long or has failed
    };

    // `owner` is told of the connection's events.
    Lease(Desk& desk, const Transaction& transaction, ConnectionOwner& owner, LeaseEvents& events)
        : desk_(desk),
          transaction_(transaction),
          owner_(owner),
          events_(events),
          node_(&desk.context.node) {}

    explicit operator bool() const { return connection_ != nullptr; }
    Connection* connection() { return connection_; }
    const Connection* connection() const { return connection_; }
    Connection* operator->() { return connection_; }
    Connection& operator*() { return *connection_; }

    // Nothing: it is there. Otherwise the command has been answered, or must be tried again.
    std::optional<Executed> take(const Call& call);
    // The same at this node, whatever the command is about.
    std::optional<Executed> take_at(Node& node, const Call& call);
    // It is of that node.
    bool is_of(const Node& node) const { return node_ == &node; }
    Node& node() { return *node_; }
    // Takes a connection set up as another user than nearkey's. False: none is free yet.
    bool take_as(const UpstreamCredentials& credentials);
    // Takes one of its node. False: none is free yet. `is_fresh`: dialled now, for idle ones may be
    // to a former primary.
    bool take_one(bool is_fresh);
    // The next one is of this node. REQUIRES: there is none, and take_one() follows: only a
    // connection and a place in the queue keep the node.
    void turn_to(Node& node);
    // True if take() would give one that is ready. If not, one is connected for later.
    bool is_there_at_once();
    // Gives it back; replies that it owes are for nobody.
    void end();
    void stop_waiting();

    // Asks something for ourselves before the client's command goes over it. Behind this call the
    // answer may be there: a full queue fails it at once.
    void prepare(std::string_view bytes, WhenRefused when_refused);
    // The same for a client's command, which preparation() answers. Nothing of it is entered in the
    // ledger.
    void ask(std::string_view bytes, RequestKind kind);
    const Preparation& preparation() const { return preparation_; }
    // The answer; nothing is asked any more.
    Preparation take_preparation() { return std::exchange(preparation_, {}); }
    // The connection was lost behind the answer.
    void void_preparation();
    // The command that waited is over: whatever it still waits for, and all that was asked for it,
    // is for nobody.
    void forget_waiting();
    // Nothing: it works. A command that fails here is answered with an error, and was not sent.
    std::optional<Executed> prove(const Call& call, bool is_proven, WhenRefused when_refused);

    void send(const Call& call, RequestKind kind) { desk_.send(call, kind, way()); }
    SendWay way() { return {*node_, *connection_, false}; }
    // The kind of a request behind a blocking command: it waits as long as that does.
    RequestKind behind(RequestKind kind) const {
        return is_blocked_ ? RequestKind::Blocking : kind;
    }

    // A blocking command is in flight on it.
    bool is_blocked() const { return is_blocked_; }
    void set_blocked(bool is_blocked) { is_blocked_ = is_blocked; }
    // Closes it at its end instead of keeping it.
    void spoil() { is_dirty_ = true; }
    bool is_spoilt() const { return is_dirty_; }
    // The command in flight on it may change its state, unless the server refuses it.
    void doubt_state() { is_unproven_ = true; }
    // Any text on it may be a client's own, line ends and all.
    void expect_any_text() { is_scripted_ = true; }
    bool may_say_anything() const { return is_scripted_; }
    // A reply has ended on it.
    void note_reply(bool is_error) {
        if (connection_ != nullptr) note_own_reply(is_error);
    }

private:
    void note_own_reply(bool is_error);
    // LeaseWaiter
    void on_lease_possible() override { settle_wait(false); }
    void on_lease_refused() override { settle_wait(true); }
    // ReplyReceiver: of the questions of prepare()
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t ticket) override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;

    void settle_wait(bool is_refused);
    bool take_new(const LeaseWish& wish);
    void introduce() {
        nearkey::introduce(*connection_, desk_.client.identity, *node_, desk_.context.encoded);
    }

    Desk& desk_;
    const Transaction& transaction_;
    ConnectionOwner& owner_;
    LeaseEvents& events_;
    // Of connection_, or of the one that is waited for in its queue; without either the one that
    // always is: a node of a cluster goes when nobody uses it. A refusal is the end of the wait.
    Node* node_;
    Connection* connection_ = nullptr;
    Preparation preparation_;
    bool is_asking_ = false;  // for a client, who is to know what became of it
    bool is_blocked_ = false;
    bool is_unproven_ = false;
    bool is_dirty_ = false;
    bool is_scripted_ = false;
    bool is_doubtful_ = false;  // its bytes may have been more replies than it seemed
    bool was_refused_ = false;  // none became free in time
};

}  // namespace nearkey
