// One client: its bytes become commands, each command is answered here or sent on, and the replies
// go back in the order of the commands.
// Owned by ClientServer, at a fixed address; told to end, it reports and is reaped later.
//
//   input ─▶ parser ─▶ execute ─┬─▶ answered here ──────────────┐
//                               └─▶ connection ─▶ on_reply_* ───┴─▶ output ─▶ one write a turn
//
// A command's ticket is its number. Tickets first_ticket_ ... next_ticket_ - 1 are owed; what is
// known too early (an error, an answer of our own) is held until its turn. The session uses one
// upstream connection at a time and moves only when nothing is owed.
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/loop/byte_stream.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/session/limits.h"
#include "nearkey/upstream/pool.h"

#include <map>
#include <memory>
#include <string>

namespace nearkey {

class Session;

class SessionEvents {
public:
    // The session is over; it is destroyed later, not in this call.
    virtual void on_session_ended(Session& session) = 0;
    // limits.memory_max is exceeded. Who is paused for it goes on with resume_after_memory().
    virtual void on_memory_exceeded() = 0;

protected:
    ~SessionEvents() = default;
};

// What all sessions share. Outlives them.
struct SessionContext {
    Loop& loop;
    const LimitOptions& limits;
    Metrics& metrics;
    Log& log;
    ConnectionPool& pool;
    int initial_database;
    SessionEvents& events;
    std::string encoded;            // scratch: a command encoded anew
    uint64_t attack_logged_ms = 0;  // 0: never
};

class Session final : public StreamEvents, public ReplyReceiver {
public:
    Session(SessionContext& context, uint64_t id);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Called once, first.
    void attach(std::unique_ptr<ByteStream> stream);
    // Takes no more input; ends when what is owed is delivered.
    void drain();
    // Ends now; what is owed is dropped.
    void abort();
    void resume_after_memory();

    uint64_t id() const { return id_; }
    size_t buffered_bytes() const { return accounted_; }

    // StreamEvents
    void on_bytes(std::string_view bytes) override;
    void on_end() override;
    void on_stream_lost() override;
    void on_writable() override;
    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t ticket) override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;

private:
    // Why reading is paused; it goes on when no reason is left.
    enum Pause : uint8_t { kOutput = 1, kInFlight = 2, kUntilIdle = 4, kMemory = 8, kYield = 16 };
    enum class Executed { Yes, NotYet };

    static constexpr std::string_view kNoConnectionLeft =
        "ERR nearkey has no connection left for another database or protocol "
        "(upstream.connections_max)";

    struct Hook final : Deferred {
        Hook(Session& owner, Phase phase, void (Session::*what)())
            : Deferred(owner.context_.loop, phase), session(owner), action(what) {}
        void before_sleep() override { (session.*action)(); }
        Session& session;
        void (Session::*action)();
    };

    // Input
    void resume();
    void run(std::string_view& input);
    bool may_run(size_t executed);
    Executed execute(const CommandView& command);
    void pause(Pause reason, uint64_t* counter);
    void unpause(uint8_t reasons);
    void update_reading();
    void stop_input();
    void close_attacker();

    // Routes
    Executed forward(const CommandView& command, RequestKind kind);
    Executed forward_alone(const CommandView& command, RequestKind kind);
    Executed forward_unproven(const CommandView& command);
    Executed refuse_unsure();
    Executed wait_until_idle();
    void send(Connection& connection, const CommandView& command, RequestKind kind);
    void leave_connection();
    void end_lease();

    // Answers of our own (session_local.cc)
    Executed execute_local(LocalCommand local, const CommandView& command);
    Executed hello(const CommandView& command);
    Executed select(const CommandView& command);
    enum class SelectFailure { Refused, OnTheWay };
    void on_selected();
    void on_select_failed(SelectFailure failure);
    Executed reset();
    void client_setname(std::string_view name);
    void client_setinfo(const CommandView& command);
    void refuse(const CommandSpec& spec);
    void answer(std::string_view reply);
    void answer_error(std::string_view text);
    void answer_hello();

    // Output
    uint32_t owed() const { return next_ticket_ - first_ticket_; }
    void settle();
    void hold(uint32_t ticket, std::string reply);
    size_t unsent() const { return output_.size() + held_bytes_; }
    bool void_partial_reply();
    void flush();
    void end_if_done();
    void end();
    void account();
    bool is_over_memory() const {
        const Metrics& metrics = context_.metrics;
        return metrics.client_memory_bytes + metrics.upstream_unsent_bytes >
               context_.limits.memory_max;
    }

    SessionContext& context_;
    const uint64_t id_;
    std::unique_ptr<ByteStream> stream_;
    Hook resume_hook_;
    Hook flush_hook_;

    // What the server would keep for a client.
    int protocol_ = 2;
    int database_;
    std::string name_;

    CommandParser parser_;
    Buffer input_;
    uint8_t paused_ = 0;
    bool input_over_ = false;  // the client, an error or QUIT ended it; input_ may hold more to run
    bool input_dropped_ = false;  // what is left of it is not run either
    bool ended_ = false;

    Connection* connection_ = nullptr;  // pinned shared connection
    Connection* lease_ = nullptr;
    bool lease_blocks_ = false;     // a blocking command is in flight on it
    bool lease_unproven_ = false;   // what went over it may have changed it
    int selecting_ = -1;            // the database that a SELECT asks for, on connection_
    bool database_unsure_ = false;  // a SELECT failed on the way: nothing may run until one works

    uint32_t first_ticket_ = 0;
    uint32_t next_ticket_ = 0;
    std::map<uint32_t, std::string> held_;  // replies that are known before their turn
    size_t held_bytes_ = 0;

    Buffer output_;
    size_t committed_ = 0;      // bytes of output_ that are whole replies
    char reply_type_ = 0;       // first byte of the reply being received
    bool partly_sent_ = false;  // the beginning of the reply being received has left already
    bool output_lost_ = false;  // the client can't be written to any more
    bool output_blocked_ = false;
    size_t accounted_ = 0;
};

}  // namespace nearkey
