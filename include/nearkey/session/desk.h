// The part of a client that every way of answering a command needs: its identity, the order of its
// replies, its output, and the reasons why it is paused. Owned by Session, which owns the ways too.
#pragma once

#include "nearkey/coherence/ledger.h"
#include "nearkey/resp/slot.h"
#include "nearkey/session/call.h"
#include "nearkey/session/context.h"
#include "nearkey/session/output.h"
#include "nearkey/session/pauses.h"
#include "nearkey/session/reply_queue.h"
#include "nearkey/session/request_tags.h"
#include "nearkey/session/tally.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace nearkey {

// Running a command in the old database would be worse than not running it.
inline constexpr std::string_view kDatabaseUnsure =
    "UPSTREAMDOWN the database could not be selected; not sent";

// Hits that a client had in shared memory, by its own word (NEARKEY HITS).
struct SharedHits {
    // Those that the command being executed stands for; 0: for itself alone.
    uint32_t told_with(uint64_t commands) const { return commands == at ? last : 0; }

    uint64_t total = 0;
    uint32_t last = 0;
    uint64_t at = 0;  // Tally::commands() when they were told
};

// Events that a desk tells its session.
class DeskEvents : public PauseEvents {
public:
    // Deferred: once a turn, behind all replies.
    virtual void flush() = 0;
    // Replies that were held may follow, and what waited for them may go on.
    virtual void settle() = 0;
    // The memory held may be more, or less, by now.
    virtual void account() = 0;
    // The client gets this descriptor with the next reply.
    virtual void pass(UniqueFd descriptor) = 0;
    virtual void end() = 0;

protected:
    ~DeskEvents() = default;
};

class Desk final : private LedgerOwner {
public:
    // `terms` are its listener's; `receiver` gets the replies to what send() sends.
    Desk(SessionContext& shared, const ClientTerms& terms, uint64_t id, DeskEvents& events,
         ReplyReceiver& receiver);

    SessionContext& context;
    const ClientTerms& terms;
    const bool is_placed;  // place() says where its commands run
    const uint64_t id;
    ClientState client;
    Pauses pauses;
    Ledger ledger;
    ReplyQueue replies;
    Output output;
    std::unique_ptr<RequestTags> tags;  // from the first NEARKEY TAG on
    Tally tally;
    SharedHits shared_hits;
    uint32_t taken_up_us = 0;  // the turn in which the command being executed was taken up
    bool is_retried = false;   // it could not be executed in that turn

    uint32_t owed() const { return replies.owed(); }
    ReplyReceiver& receiver() { return receiver_; }
    size_t unsent() const { return output.size() + replies.bytes(); }
    void flush_soon() { flush_hook_.defer(); }
    void account() { events_.account(); }
    // REQUIRES: nothing is unsent.
    void pass(UniqueFd descriptor) { events_.pass(std::move(descriptor)); }
    // The client's last NEARKEY TAG; empty: none.
    std::string_view tag() const { return tags == nullptr ? std::string_view() : tags->last(); }

    // --- the client's end
    // Runs no more input; replies that are owed are delivered.
    void stop_input();
    bool is_input_stopped() const { return is_input_stopped_; }
    // The client sends no more, but all that it has sent is run.
    void note_input_over() { is_input_over_ = true; }
    bool is_input_over() const { return is_input_over_; }
    // Ends it now: it takes less than it is sent.
    void close_for_output();
    // Ends the client's connection behind the last whole reply: the client sees the same as without
    // nearkey, no reply, and the end.
    void cut();
    bool is_cut() const { return is_cut_; }
    void end() { events_.end(); }
    void mark_ended() { has_ended_ = true; }
    bool has_ended() const { return has_ended_; }
    // True if bytes from upstream are for nobody.
    bool is_over() const { return has_ended_ || is_cut_; }

    // --- answers of our own; `spec` is that of the command being executed
    // Answers with a reply that holds no client's words.
    void answer(const CommandSpec* spec, std::string_view reply) {
        if (reply.starts_with('-')) tally.count_error(spec, reply);
        answer_as(spec, RequestOutcome::Local, reply);
    }
    void answer_as(const CommandSpec* spec, RequestOutcome outcome, std::string_view reply);
    void answer_error(const CommandSpec* spec, std::string_view text);
    // True if the client is cut instead of getting `error`: Valkey is away, lost or silent, and its
    // listener says so, or the command waits for other clients. Job queues try that again on a new
    // connection, but take an error for their end.
    bool is_cut_by(std::string_view error, bool waits) const {
        return (terms.when_down == WhenDown::Close || waits) && error.starts_with("UPSTREAM");
    }
    // Logs a warning with this client's session and the command that is run now.
    void warn(std::string_view event, std::string_view what);
    // Pauses until nothing is owed. REQUIRES: something is.
    Executed wait_until_idle();

    // --- commands that go to Valkey
    // The node of a cluster where the command runs. Nothing: `node` is set. Otherwise it has been
    // answered, or must be tried again. REQUIRES: is_placed.
    std::optional<Executed> place(const Call& call, Node*& node);
    // The node that is asked for this key.
    Node& node_of(std::string_view key) const {
        return context.cluster == nullptr ? context.node : context.cluster->owner(slot_of(key));
    }
    // Answers what is asked about the cluster that nearkey seems to be. REQUIRES: is_about_face().
    Executed answer_as_cluster(const Call& call);
    // False: something that is still owed may be of this slot, and on its way from one node to
    // another. REQUIRES: context.cluster.
    [[nodiscard]] bool is_in_order(uint16_t slot) {
        return is_settled(slot) && !is_owed_by_replica(slot);
    }
    // The same for a read that goes to a replica.
    [[nodiscard]] bool is_settled(uint16_t slot);
    // A reply about the slot, or about another with the same bit, is owed by a replica. REQUIRES:
    // is_settled() was asked for.
    static constexpr size_t kReplicaBits = 64;
    bool is_owed_by_replica(uint16_t slot) const {
        return (owed_by_replicas_ >> (slot % kReplicaBits) & 1) != 0;
    }
    void note_replica_owes(uint16_t slot) {
        owed_by_replicas_ |= uint64_t{1} << (slot % kReplicaBits);
    }
    // Pauses until nothing is owed. REQUIRES: !is_in_order().
    Executed wait_for_order() {
        ++context.metrics.cluster_gate_waits_total;
        return wait_until_idle();
    }
    // It goes to Valkey, whose reply the client is shown.
    void count_forwarded(const CommandSpec* spec) {
        tally.count_forwarded(tally.row(spec));
        ledger.note_shown();
    }
    // The answer that follows was made of replies that came over this connection.
    void note_shown_reply(const Call& call, const SendWay& way);
    // The command in canonical RESP. Valid until the next call.
    std::string_view canonical(const CommandView& command);
    RequestTiming timing(const Call& call, RequestKind kind);
    void send(const Call& call, RequestKind kind, const SendWay& way);
    // Opens a ticket for each part of the command; returns the first. Each is then sent once.
    uint32_t open_parts(const Call& call, PartPlan plan);
    // `bytes`: the part, canonical RESP.
    void send_part(const Call& part, uint32_t ticket, const SendWay& way, std::string_view bytes);

private:
    struct FlushHook final : Deferred {
        FlushHook(Loop& loop, DeskEvents& owner) : Deferred(loop, Phase::Client), events(owner) {}
        void before_sleep() override { events.flush(); }
        DeskEvents& events;
    };

    // LedgerOwner
    void on_ledger_waits() override { pauses.pause(PauseReason::kFill, nullptr); }
    void on_ledger_open() override { pauses.unpause(PauseReason::kFill); }
    void on_replies_proven() override { flush_soon(); }
    uint64_t now_ms() const override { return context.loop.now_ms(); }
    void on_ledger_grown() override { events_.account(); }

    DeskEvents& events_;
    ReplyReceiver& receiver_;
    uint32_t seen_version_ = 0;      // Cluster::version() when nothing was owed last
    uint64_t owed_by_replicas_ = 0;  // since then: a bit for each slot, modulo kReplicaBits
    FlushHook flush_hook_;
    bool is_input_over_ = false;     // the client, an error or QUIT ended it
    bool is_input_stopped_ = false;  // the rest of the input is not run either
    bool is_cut_ = false;
    bool has_ended_ = false;
};

}  // namespace nearkey
