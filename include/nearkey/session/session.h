// One client: its bytes become commands, each command is answered here or sent on, and the replies
// go back in the order of the commands.
// Owned by ClientServer, at a fixed address; told to end, it reports and is reaped later.
//
//   input ─▶ parser ─▶ Conversation ─┬─▶ answered here ──────────────┐
//                                    └─▶ connection ─▶ on_reply_* ───┴─▶ output ─▶ one write a turn
//
// A command's ticket is its number; ReplyQueue has the order. A reply that is known too early (an
// error, an answer of our own, a reply over another connection) is held until its turn.
#pragma once

#include "nearkey/loop/byte_stream.h"
#include "nearkey/session/conversation.h"
#include "nearkey/session/desk.h"
#include "nearkey/session/facts.h"
#include "nearkey/session/input.h"
#include "nearkey/session/slow_replies.h"

#include <memory>
#include <string_view>
#include <utility>

namespace nearkey {

class Session final : public StreamEvents, public ReplyReceiver, private DeskEvents {
public:
    // `terms` are its listener's.
    Session(SessionContext& context, const ClientTerms& terms, uint64_t id);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Called once, first.
    void attach(std::unique_ptr<ByteStream> stream) { stream_ = std::move(stream); }
    // Takes no more input; ends when all owed replies are delivered. Where the client can be told
    // so (ByteStream::refuse_more), input that it has sent by now is still run.
    void drain();
    // Ends now; owed replies are dropped.
    void abort() { end(); }
    void pause_for_memory();
    void resume_after_memory();
    // Memory that is freed if the client is closed.
    size_t memory_bytes() const;
    // Gives back memory kept for many commands in flight.
    void shrink();

    uint64_t id() const { return desk_.id; }
    // The client's last NEARKEY TAG; empty: none.
    std::string_view tag() const { return desk_.tag(); }
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
    bool on_request_delayed(uint32_t ticket) override;
    void on_held_up() override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    void on_slow_request(uint32_t ticket, const RequestTiming& timing, SlowEnd end) override;

private:
    // DeskEvents
    void resume() override;
    void update_reading() override;
    void flush() override;
    void settle() override;
    void account() override;
    void pass(UniqueFd descriptor) override { stream_->pass(std::move(descriptor)); }
    void end() override;

    // Input
    void check_memory();
    void run_input();
    void run(std::string_view& input);
    bool may_run(size_t executed);
    // Of what comes without being asked for.
    void update_server_reading();

    // True: its client was closed for it.
    bool is_output_too_large() {
        return desk_.unsent() > desk_.terms.limits.output_per_client_max && close_for_output();
    }
    bool close_for_output();
    [[nodiscard]] bool give(const PartGroup& group);
    void note_end(const PartGroup& group, bool has_failed);
    void end_if_done();
    void enter_slow();

    SessionContext& context_;
    std::unique_ptr<ByteStream> stream_;
    Desk desk_;
    Input input_;
    Conversation conversation_;
    SlowReplies slow_;
    bool is_draining_ = false;

    // Memory, in bytes.
    size_t accounted_ = 0;  // all of it, as Metrics knows it
    size_t spare_ = 0;      // of these, room that is kept for the next commands

    // Its whole life.
    const uint64_t connected_ms_;
    uint64_t active_ms_;
    uint64_t bytes_in_ = 0;
    uint64_t bytes_out_ = 0;
};

}  // namespace nearkey
