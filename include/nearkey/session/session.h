// One client: its bytes become commands, each command is answered here or sent on, and the replies
// go back in the order of the commands.
// Owned by ClientServer, at a fixed address; told to end, it reports and is reaped later.
//
//   input ─▶ parser ─▶ execute ─┬─▶ answered here ──────────────┐
//                               └─▶ connection ─▶ on_reply_* ───┴─▶ output ─▶ one write a turn
//
// A command's ticket is its number. Tickets first_ticket_ ... next_ticket_ - 1 are owed; what is
// known too early (an error, an answer of our own) is held until its turn. The session uses one
// upstream connection at a time and moves only when nothing is owed:
//
//   shared ──blocking, script──▶ lease ──answered──▶ shared
//          ──WATCH, MULTI──────▶ lease ──EXEC ...──▶ shared     a transaction is lost: client
//          closed ──SUBSCRIBE, AUTH ...▶ tunnel ──RESET──▶ shared      bytes pass; its end is the
//          client's
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/base/ring.h"
#include "nearkey/loop/byte_stream.h"
#include "nearkey/session/context.h"
#include "nearkey/session/facts.h"
#include "nearkey/session/pause.h"
#include "nearkey/session/pending.h"
#include "nearkey/session/request_tags.h"
#include "nearkey/session/tunnel.h"

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace nearkey {

class Session final : public StreamEvents,
                      public ReplyReceiver,
                      private ConnectionOwner,
                      private LeaseWaiter,
                      private FillWaiter,
                      private ProofWaiter {
public:
    // `terms` are its listener's.
    Session(SessionContext& context, const ClientTerms& terms, uint64_t id);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Called once, first.
    void attach(std::unique_ptr<ByteStream> stream);
    // Takes no more input; ends when what is owed is delivered. Where the client can be told so
    // (ByteStream::refuse_more), what it has sent by now is still run.
    void drain();
    // Ends now; what is owed is dropped.
    void abort();
    void pause_for_memory();
    void resume_after_memory();
    // What goes if the client is closed.
    size_t memory_bytes() const;
    // Gives back what it has kept for as many commands in flight as there were once.
    void shrink();

    uint64_t id() const { return id_; }
    // The client's last NEARKEY TAG; empty: none.
    std::string_view tag() const { return tags_ == nullptr ? std::string_view() : tags_->last(); }
    ClientFacts facts() const;

    // StreamEvents
    void on_bytes(std::string_view bytes) override;
    void on_end() override;
    void on_stream_lost() override;
    void on_writable() override;
    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t ticket) override;
    void on_held_up() override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    void on_slow_request(uint32_t ticket, const RequestTiming& timing, SlowEnd end) override;

private:
    using Pause = PauseReason::Bits;
    using enum PauseReason::Bits;
    enum class Executed { Yes, NotYet };

    static constexpr std::string_view kNoConnectionLeft =
        "ERR nearkey has no connection left for another database or protocol "
        "(upstream.connections_max)";
    // A command of this size goes over a lease that is there at once: there it holds up nobody.
    static constexpr size_t kLarge = size_t{1} << 20;

    // Is propagated, so it moves its connection's replication offset past every write before it,
    // and is heard by nobody: no pattern matches it.
    static constexpr std::string_view kMark =
        "*3\r\n$8\r\nSPUBLISH\r\n$12\r\nnearkey:wait\r\n$0\r\n\r\n";
    // To run it in the old database would be worse than not to run it.
    static constexpr std::string_view kDatabaseUnsure =
        "UPSTREAMDOWN the database could not be selected; not sent";

    struct Hook final : Deferred {
        Hook(Session& owner, Phase phase, void (Session::*what)())
            : Deferred(owner.context_.loop, phase), session(owner), action(what) {}
        void before_sleep() override { (session.*action)(); }
        Session& session;
        void (Session::*action)();
    };

    // A command of a transaction whose reply says how the transaction stands.
    struct Step {
        uint32_t ticket;
        Special what;
    };

    // Gets the replies to the PTTLs that go before reads whose reply may be stored; a ticket is the
    // fill's number.
    class TtlReceiver final : public ReplyReceiver {
    public:
        explicit TtlReceiver(Session& session) : session_(session) {}
        void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
        void on_reply_end(uint32_t ticket) override;
        bool on_reply_void(uint32_t ticket) override;
        void on_request_failed(uint32_t ticket, std::string_view error) override;

    private:
        static constexpr size_t kReplyMax = 48;
        Session& session_;
        char reply_[kReplyMax];
        size_t size_ = 0;
    };

    // A request that took long; its reply is complete, and not yet written.
    struct SlowReply {
        SlowEntry entry;
        uint32_t since_us;
    };

    // Input
    bool may_expect() const;
    bool expect(std::string_view input);
    void expect_batch(std::string_view input);
    void check_memory();
    void complete_input(std::string_view& bytes);
    void run_input();
    void resume();
    void run(std::string_view& input);
    bool may_run(size_t executed);
    Executed execute(const CommandView& command, std::string_view input);
    void pause(Pause reason, Count* counter);
    void unpause(uint8_t reasons);
    void update_reading();
    void stop_input();
    void refuse_input();
    void close_attacker();
    // Says it of this client, and of the command that is run now.
    void warn(std::string_view event, std::string_view what);

    // Routes over the shared connection. pin() returns nothing when connection_ may be sent to.
    Executed forward_shared(const CommandView& command);
    Executed forward(const CommandView& command, RequestKind kind);
    std::optional<Executed> pin(size_t commands);
    void leave_slow_connection();
    Executed wait_until_idle();
    std::string_view canonical(const CommandView& command);
    void send(Connection& connection, const CommandView& command, RequestKind kind);
    void leave_connection();

    // The near cache (session_cache.cc)
    Executed read(const CommandView& command);
    Executed read_split(const CommandView& command);
    void sample_hit(std::string_view key);
    Executed read_upstream(const CommandView& command);
    CacheQuery query(const CommandView& command);
    CacheQuery query_part(std::string_view key) const;
    bool may_be_stored(const CommandView& command) const;
    bool serve_stale(const CommandView& command);
    bool is_served_stale(const CommandSpec* spec, const CommandView& command);
    bool may_be_overtaken(std::string_view key);
    void note(Connection& connection, const CommandView& command, uint32_t ticket);
    void note_read(Connection& connection, const CommandView& command, uint32_t ticket);
    PendingFill pending_fill(uint32_t ticket) const;
    bool note_split(Connection& connection, const CommandView& command, uint32_t ticket);
    bool begin_fill(Connection& connection, const CacheQuery& query, PendingFill fill);
    void begin_writes(const CommandView& command, uint32_t ticket);
    void begin_whole(uint32_t ticket);
    void queue_writes();
    void note_exec(uint32_t ticket);
    void forget_queued();
    uint64_t awaited_ms() const;
    void tell_cache(uint32_t ticket, std::string_view reply);
    void tell_cache_of_failure(uint32_t ticket);
    [[nodiscard]] bool end_writes(uint32_t ticket);
    WriteScope end_write();
    [[nodiscard]] bool end_fills(uint32_t ticket, std::string_view reply);
    void end_fill(const PendingFill& pending, std::string_view reply);
    void note_through(const CommandSpec* spec, const CommandView& command);
    void leave_cache();
    void on_fill_closed() override;

    // What is newer than what is stored (session_proof.cc)
    void note_unstored(const Connection& connection, const CommandView& command, uint32_t ticket);
    void mark_unstored(const Connection& connection, uint32_t ticket);
    [[nodiscard]] bool end_unstored(uint32_t ticket, std::string_view reply);
    void store(NearCache::Ticket fill, std::string_view reply, uint64_t deadline_ms);
    void change_way();
    void leave_database_or_protocol();
    void await_proof();
    void on_proven() override;

    // Routes over a lease (session_lease.cc). take_lease() returns nothing when lease_ is there.
    Executed forward_alone(const CommandView& command, RequestKind kind);
    Executed forward_script(const CommandView& command, RequestKind kind);
    Executed forward_apart(const CommandView& command, RequestKind kind);
    Executed send_large(const CommandView& command);
    bool has_lease_at_once();
    void prefetch_lease();
    Executed forward_unproven(const CommandView& command);
    Executed forward_wait(const CommandView& command);
    std::optional<Executed> take_lease();
    std::optional<Executed> prove_lease(bool is_proven, WhenRefused when_refused);
    void introduce();
    void prepare(std::string_view bytes, WhenRefused when_refused);
    void on_prepared();
    void end_lease();
    void on_lease_possible() override;
    void on_lease_refused() override;
    void on_connection_lost() override;

    // Transactions (session_transaction.cc)
    Executed execute_transaction(const CommandSpec& spec, const CommandView& command,
                                 std::string_view input);
    Executed execute_in_transaction(const CommandSpec& spec, const CommandView& command);
    std::optional<Executed> forward_whole(std::string_view input);
    size_t encode_whole(std::string_view input, uint32_t& commands);
    Executed forward_step(Special what, const CommandView& command);
    void finish_step(Special what);
    bool may_be_in_multi();
    bool is_in_transaction() const { return in_multi_ || watching_ || !steps_.empty(); }
    void lose_transaction();
    void leave_transaction() { in_multi_ = watching_ = multi_owed_ = multi_spoilt_ = false; }
    std::string fail_in_transaction(uint32_t ticket, std::string_view error);
    std::string fail_owed(Special what, std::string_view error);
    std::optional<Executed> begin_owed(const CommandSpec* spec, const CommandView& command);

    // Rules (session_access.cc)
    bool is_refused(const CommandSpec* spec, const CommandView& command) const;
    Executed refuse(const CommandView& command);
    Executed forward_config_get(const CommandView& command);
    [[nodiscard]] bool hide_secrets(const CommandView& command, std::string& instead);
    void finish_refusal(Special what, std::string_view reply);
    std::string in_words_of_refusal(std::string_view reply) const;

    // Tunnels (session_tunnel.cc)
    Executed enter_tunnel(const CommandSpec* spec, const CommandView& command);
    std::optional<Executed> take_lease_as_client(const CommandView& command);
    Executed pass_through(const CommandSpec* spec, const CommandView& command);
    void on_tunnel_bytes(std::string_view bytes) override;
    void on_tunnel_room() override { unpause(kServer); }
    void on_tunnel_ended();
    void follow_replies(std::string_view bytes);
    size_t follow_reply(std::string_view bytes);
    void leave_tunnel();
    void finish_tunnel();
    void update_tunnel_reading();

    // Answers of our own (session_local.cc)
    Executed execute_local(const CommandSpec& spec, const CommandView& command);
    Executed hello(const CommandSpec& spec, const CommandView& command);
    Executed select(const CommandView& command);
    enum class SelectFailure { Refused, OnTheWay };
    void on_selected();
    void on_select_failed(SelectFailure failure);
    Executed reset();
    void forget_state();
    void client_setname(std::string_view name);
    void client_setinfo(const CommandView& command);
    void answer(std::string_view reply);
    void answer_as(RequestOutcome outcome, std::string_view reply);
    void answer_error(std::string_view text);
    void answer_hello();
    // session_nearkey.cc
    Executed nearkey(const CommandView& command);
    Executed nearkey_tag(std::string_view tag);
    void nearkey_cache(std::string_view what);
    void explain(const CommandView& command);
    struct Pairs;
    void explain_keys(const CommandView& command, Pairs& pairs);
    void explain_cache(const CommandView& command, Pairs& pairs);
    void explain_key(const CacheQuery& query, Pairs& pairs);

    // Where the time goes (session_timing.cc)
    CommandFamily family() const { return spec_ == nullptr ? CommandFamily::Other : spec_->family; }
    RequestTiming timing(const CommandView& command, RequestKind kind);
    void finish_slow();

    // Output
    uint32_t owed() const { return next_ticket_ - first_ticket_; }
    void settle();
    void hold(uint32_t ticket, std::string reply);
    size_t unsent() const { return output_.size() + held_bytes_; }
    bool void_partial_reply();
    void flush();
    void end_if_done();
    // The client sees what it would see directly: no reply, and the end of its connection. What
    // stands before that leaves first.
    void cut();
    // Whether it is cut where `error` would be its reply: Valkey is away, lost or silent, and its
    // listener says so, or the command waits for other clients. Job queues try that again on a new
    // connection, and take an error for their end.
    bool is_cut_by(std::string_view error, bool waits) const;
    void end();
    // Memory (session_memory.cc)
    void account();
    size_t ring_bytes();
    void count_identity();

    SessionContext& context_;
    const ClientTerms& terms_;
    const uint64_t id_;
    std::unique_ptr<ByteStream> stream_;
    Hook resume_hook_;
    Hook flush_hook_;

    // What the server would keep for a client.
    int protocol_ = 2;
    int database_;
    ClientIdentity identity_;

    CommandParser parser_;
    size_t consumed_ = 0;       // bytes of the input that the command being executed takes
    bool input_given_ = false;  // a large command took input_ along: what follows is in a new one
    Buffer input_;
    uint8_t paused_ = 0;
    bool is_draining_ = false;
    bool input_over_ = false;  // the client, an error or QUIT ended it; input_ may hold more to run
    bool input_dropped_ = false;  // what is left of it is not run either
    bool ended_ = false;

    Connection* connection_ = nullptr;  // pinned shared connection
    bool has_written_ = false;          // WAIT counts what went over any connection
    Connection* lease_ = nullptr;
    bool lease_blocks_ = false;    // a blocking command is in flight on it
    bool lease_unproven_ = false;  // what is in flight on it may have changed it
    bool lease_dirty_ = false;     // it is not to be used again
    bool lease_scripted_ = false;  // any text on it may be a client's own, line ends and all
    bool lease_doubtful_ = false;  // what came on it may have been more replies than it seemed
    bool lease_refused_ = false;   // none became free in time
    enum class Preparation : uint8_t { None, Pending, Done };
    Preparation preparation_ = Preparation::None;
    std::string preparation_error_;    // and before: the reply, whatever it is
    bool preparation_failed_ = false;  // without a reply

    const CommandSpec* spec_ = nullptr;  // of the command being executed
    CacheUse cache_use_;                 // NEARKEY CACHE may say otherwise than terms_, until RESET
    Ring<PendingFill> fills_;            // in flight, in order
    uint32_t first_fill_ = 0;            // the number of the first of them
    Ring<PendingWrite> writes_;          // in flight, in order
    uint32_t told_writes_ = 0;           // of them
    Ring<UnstoredRead> unstored_reads_;  // in flight, in order
    uint32_t proofs_awaited_ = 0;        // nothing leaves, and nothing is run, until then
    uint32_t proofs_had_ = 0;
    bool is_changing_way_ = false;      // the proof awaited holds back only what is run next
    std::vector<LateFill> late_fills_;  // in the order of their proofs
    size_t late_bytes_ = 0;             // of their replies
    // Of what is queued for EXEC.
    bool multi_reads_ = false;
    bool multi_watches_ = false;
    WriteScope multi_scope_ = WriteScope::Keys;
    std::vector<std::string> multi_keys_;  // which it writes, unless that is everything
    TtlReceiver ttl_receiver_;
    NearCache::Ticket awaited_fill_ = 0;  // another client's
    uint64_t awaited_since_ms_ = 0;
    bool has_awaited_ = false;  // one is enough for a command

    Ring<Step> steps_;       // in flight, in order
    bool in_multi_ = false;  // as the replies so far say
    bool watching_ = false;
    bool multi_owed_ = false;    // the client was told that it is in MULTI, the server was not yet
    bool multi_spoilt_ = false;  // and something of it was refused: EXEC must fail
    std::unique_ptr<Tunnel> tunnel_;

    int selecting_ = -1;            // the database that a SELECT asks for, on connection_
    bool database_unsure_ = false;  // a SELECT failed on the way: nothing may run until one works

    uint32_t command_us_ = 0;     // the turn in which the command being executed was taken up
    bool is_retried_ = false;     // it could not be executed then
    bool is_cache_read_ = false;  // it is a read that the near cache could not answer
    std::vector<SlowReply> slow_;
    std::unique_ptr<RequestTags> tags_;  // from the first NEARKEY TAG on

    uint32_t first_ticket_ = 0;
    uint32_t next_ticket_ = 0;
    std::map<uint32_t, std::string> held_;  // replies that are known before their turn
    size_t held_bytes_ = 0;

    Buffer output_;
    size_t committed_ = 0;      // bytes of output_ that are whole replies
    size_t reply_size_ = 0;     // so far, of the reply being received
    uint32_t alone_ = 0;        // so many more commands go over a lease
    char reply_type_ = 0;       // first byte of the reply being received
    bool partly_sent_ = false;  // the beginning of the reply being received has left already
    bool is_cut_ = false;       // the client's connection ends behind what is committed
    bool output_lost_ = false;  // the client can't be written to any more
    bool output_blocked_ = false;
    HeldBytes held_by_;

    // Of its whole life.
    const uint64_t connected_ms_;
    uint64_t active_ms_;
    uint64_t commands_ = 0;
    uint64_t commands_unseen_ = 0;  // of them, showed nothing newer than what it may be served
    uint64_t bytes_in_ = 0;
    uint64_t bytes_out_ = 0;
};

}  // namespace nearkey
