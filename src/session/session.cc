#include "nearkey/session/session.h"

#include "nearkey/base/probes.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/expected_reads.h"

#include <algorithm>
#include <string>
#include <utility>

namespace nearkey {

namespace {
using enum PauseReason::Bits;

// Fewer places of the rings are not worth a look.
constexpr size_t kRecordsFree = 64;
constexpr size_t kKeptMuch = size_t{256} << 10;

// Before it is executed: not again when it is tried again.
[[gnu::noinline, gnu::cold]] void trace_request(Desk& desk, const CommandView& command) {
    if (desk.is_retried) return;
    probes::request({&desk.receiver(), desk.replies.next()}, command[0],
                    command.size() > 1 ? command[1] : std::string_view(), desk.tag());
}

// Names can be as long as any argument; only their beginning is shown.
std::string shown(std::string_view name) {
    std::string text(name.substr(0, ClientFacts::kNameMax));
    if (text.size() < name.size()) text.append("...");
    return text;
}
}  // namespace

Session::Session(SessionContext& context, const ClientTerms& terms, uint64_t id)
    : context_(context),
      desk_(context, terms, id, *this, *this),
      input_(static_cast<int64_t>(context.limits.bulk_max)),
      conversation_(desk_, input_),
      connected_ms_(context.loop.now_ms()),
      active_ms_(connected_ms_) {
}

void Session::drain() {
    if (desk_.has_ended()) return;
    // A client in a blocking command may leave, which must be noticed: its input stays open.
    is_draining_ = !desk_.is_input_over() && !conversation_.is_blocked() && stream_->refuse_more();
    if (is_draining_) return;  // on_end() follows.
    desk_.stop_input();
    end_if_done();
}

// --- input ---

void Session::on_bytes(std::string_view bytes) {
    bytes_in_ += bytes.size();
    active_ms_ = context_.loop.now_ms();
    if (desk_.has_ended() || desk_.is_input_over()) return;
    // It is run when the memory that it needs has been fetched.
    if (input_.buffer.empty() && !desk_.pauses.any() && expect_lone_read(desk_, bytes)) {
        input_.buffer.append(bytes);
        desk_.pauses.yield();
        return;
    }
    while (!input_.buffer.empty() && !bytes.empty() && !desk_.has_ended() &&
           !desk_.is_input_over()) {
        if (input_.parser.missing() >= kLarge) conversation_.prefetch_lease();
        input_.complete(bytes);
        run_input();
    }
    if (desk_.has_ended() || desk_.is_input_over()) return;
    if (input_.buffer.empty()) run(bytes);
    if (desk_.has_ended()) return;
    input_.buffer.append(bytes);
    check_memory();
}

void Session::check_memory() {
    if (input_.buffer.size() > desk_.terms.limits.input_per_client_max) {
        ++context_.metrics.clients_closed_input_total;
        desk_.warn("client_closed", "limits.input_per_client_max");
        end();
        return;
    }
    context_.shrink_if_large();
    account();
    if (!context_.memory.is_short()) return;
    desk_.pauses.pause(kMemory, nullptr);
    context_.events.on_memory_exceeded();
}

void Session::on_end() {
    desk_.note_input_over();
    // As in the server, a client that leaves while it waits takes nothing more. If we ended its
    // input, the client is still there.
    if (conversation_.is_blocked() && !is_draining_) {
        end();
        return;
    }
    if (!is_draining_) conversation_.on_client_left();
    end_if_done();
}

void Session::on_stream_lost() {
    desk_.output.lose();
    desk_.flush_soon();
    on_end();
}

void Session::on_writable() {
    desk_.output.on_writable();
    flush();
}

void Session::run_input() {
    std::string_view rest = input_.buffer.view();
    run(rest);
    if (!desk_.has_ended()) input_.buffer.consume(input_.buffer.size() - rest.size());
}

// Runs what waits in the input buffer.
void Session::resume() {
    if (desk_.has_ended()) return;
    desk_.pauses.end_yield();
    run_input();
    if (!desk_.has_ended()) check_memory();
    if (desk_.has_ended()) return;
    update_reading();
    end_if_done();
}

void Session::run(std::string_view& input) {
    if (context_.ledgers.cache != nullptr) context_.ledgers.boot_ms = Loop::boot_ms();
    if (!desk_.is_retried) desk_.taken_up_us = context_.loop.turn_us();
    CommandParser& parser = input_.parser;
    for (size_t executed = 0; !input.empty() && !desk_.has_ended(); ++executed) {
        // QUIT, or an error: input behind it is not run.
        if (desk_.is_input_stopped()) {
            input = {};
            return;
        }
        if (!may_run(executed)) return;
        if (executed % kExpectedAtOnce == 0) expect_batch(desk_, input);
        const ParseResult result = parser.next(input);
        if (result == ParseResult::Incomplete) return;
        if (result == ParseResult::Invalid) {
            input = {};
            conversation_.refuse_input();
            return;
        }
        input_.consumed = parser.consumed();
        if (result == ParseResult::Command) {
            if (probes::is_traced(nearkey_request_semaphore)) [[unlikely]]
                trace_request(desk_, parser.command());
            const Executed outcome = conversation_.execute(parser.command(), input);
            const bool must_wait = outcome == Executed::NotYet;
            if (must_wait || desk_.is_retried) [[unlikely]]
                conversation_.note_wait(parser.command(), outcome);
            if (must_wait) {
                parser.restart();
                desk_.is_retried = true;
                if (desk_.is_input_stopped()) input = {};
                return;
            }
            if (std::exchange(desk_.is_retried, false)) {
                desk_.taken_up_us = context_.loop.turn_us();
            }
        }
        if (desk_.has_ended()) return;
        // A command that took its buffer along has left the rest in a new one.
        if (input_.take_given()) {
            input = input_.buffer.view();
        } else {
            input.remove_prefix(input_.consumed);
        }
    }
    if (desk_.is_input_stopped()) input = {};
}

void Session::update_server_reading() {
    if (Tunnel* const tunnel = conversation_.tunnel()) tunnel->update_reading();
    if (FanIn* const fan_in = conversation_.fan_in()) fan_in->update_reading();
}

bool Session::may_run(size_t executed) {
    Pauses& pauses = desk_.pauses;
    const ClientLimits& limits = desk_.terms.limits;
    if (pauses.any()) return false;
    if (desk_.owed() >= limits.in_flight_per_client_max) {
        pauses.pause(kInFlight, &context_.metrics.clients_paused_in_flight_total);
        return false;
    }
    // In a tunnel the server judges a client that takes nothing.
    if (desk_.unsent() >= limits.output_per_client_high_water &&
        conversation_.tunnel() == nullptr) {
        pauses.pause(kOutput, &context_.metrics.clients_paused_output_total);
        return false;
    }
    if (context_.memory.is_short_of_buffers()) {
        pauses.pause(kMemory, nullptr);
        context_.events.on_memory_exceeded();
        return false;
    }
    if (executed >= limits.commands_per_turn_max) {
        pauses.pause(kYield, &context_.metrics.clients_yielded_total);
        pauses.yield();
        return false;
    }
    return true;
}

// A client is not read while its replies come without that. One that may do nothing else until it
// is read is read, and its input is kept. A client that leaves while it waits in a blocking command
// must be noticed at once, too.
void Session::update_reading() {
    unsigned read_on = kOutput;
    if (conversation_.tunnel() != nullptr) read_on |= kLease;
    const bool may_leave = conversation_.waits_at_server();
    if (may_leave) read_on = ~unsigned{kMemory};
    const bool is_over = desk_.has_ended() || (desk_.is_input_over() && !may_leave);
    if (is_over || desk_.pauses.any_of(~read_on)) {
        stream_->pause_reading();
    } else {
        stream_->resume_reading();
    }
}

// --- replies ---

void Session::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    if (desk_.is_over()) return;
    if (!desk_.replies.is_first(ticket)) {
        desk_.replies.keep(ticket, bytes);
        // Much of it is accounted for while it comes.
        if (!is_output_too_large() && desk_.replies.bytes() > kKeptMuch) desk_.flush_soon();
        return;
    }
    Output& output = desk_.output;
    output.receive(bytes);
    if (output.is_lost() || is_output_too_large()) return;
    if (output.is_large()) desk_.flush_soon();
}

bool Session::close_for_output() {
    desk_.close_for_output();
    return true;
}

void Session::on_reply_end(uint32_t ticket) {
    if (desk_.is_over()) return;
    if (!desk_.replies.is_first(ticket)) {
        desk_.replies.keep_end(ticket);
        if (desk_.replies.whole_group() != nullptr) settle();
        return;
    }
    conversation_.on_reply(ticket);
    desk_.replies.close_first();
    settle();
}

bool Session::on_reply_void(uint32_t ticket) {
    if (desk_.is_over()) return false;
    if (!desk_.replies.is_first(ticket)) {
        desk_.replies.drop_kept(ticket);
    } else if (!desk_.output.take_back()) {
        end();
    }
    return !desk_.has_ended();
}

// Nothing more is run before it is answered, so that nothing overtakes it.
bool Session::on_request_delayed(uint32_t ticket) {
    if (desk_.is_over()) return false;
    // Parts of one command are of different slots: they may change places.
    const auto last = desk_.replies.last_if_delayed(ticket);
    if (!last || *last + 1 != desk_.replies.next()) return false;
    desk_.pauses.pause(kUntilIdle, nullptr);
    return true;
}

void Session::on_held_up() {
    if (!desk_.has_ended()) conversation_.on_held_up();
}

void Session::on_request_failed(uint32_t ticket, std::string_view error) {
    if (desk_.is_over()) return;
    if (desk_.replies.fail_part(ticket, error)) {
        if (desk_.replies.whole_group() != nullptr) settle();
        return;
    }
    const bool is_cut = desk_.is_cut_by(error, conversation_.is_blocked());
    const std::string reply = is_cut ? std::string() : conversation_.fail(ticket, error);
    if (!desk_.replies.is_first(ticket)) {
        if (is_cut) {
            desk_.replies.hold_cut(ticket);
        } else {
            desk_.replies.hold_answer(ticket, reply);
        }
        return;
    }
    desk_.ledger.fail(ticket);
    if (!desk_.output.take_back()) {
        end();
        return;
    }
    if (is_cut) {
        desk_.cut();
        return;
    }
    desk_.output.append(reply);
    desk_.replies.close_first();
    conversation_.on_failed(error);
    settle();
}

// One reply in place of those to the parts of the first command. False: the client is cut instead.
bool Session::give(const PartGroup& group) {
    Output& output = desk_.output;
    for (uint32_t i = 0; i < group.count(); ++i) {
        const uint32_t ticket = group.first() + i;
        if (group.has_failed(ticket)) {
            desk_.ledger.fail(ticket);
        } else {
            desk_.ledger.end(ticket, group.reply(ticket));
        }
    }
    const PartGroup::Outcome outcome = group.outcome();
    const bool has_failed = !outcome.failure.empty();
    const std::string_view words = has_failed ? outcome.failure : outcome.reply.head;
    if (has_failed || words.starts_with('-')) group.timing().command->count_error(words);
    note_end(group, has_failed);
    if (has_failed && desk_.is_cut_by(outcome.failure, false)) {
        desk_.cut();
        return false;
    }
    if (has_failed) {
        std::string error;
        append_error(error, outcome.failure);
        output.append(error);
    } else {
        output.append(outcome.reply.head);
        for (const std::string_view piece : outcome.reply.pieces)
            output.append(piece);
    }
    desk_.replies.close_group();
    output.commit();
    return true;
}

// The parts are not counted: the client has sent one command.
void Session::note_end(const PartGroup& group, bool has_failed) {
    const RequestTiming& timing = group.timing();
    if (timing.series == RequestTiming::kUncounted) return;
    Latency& latency = context_.node.latency();
    latency.note_end(timing, has_failed ? RequestOutcome::Failed : RequestOutcome::Forwarded);
    if (!latency.is_slow(timing)) return;
    on_slow_request(group.first(), timing, has_failed ? SlowEnd::Failure : SlowEnd::Reply);
}

// A reply is whole: replies held behind it may follow, and waiting input may go on.
void Session::settle() {
    using What = EarlyReply::What;
    ReplyQueue& replies = desk_.replies;
    Output& output = desk_.output;
    output.commit();
    if (FanIn* const fan_in = conversation_.fan_in()) fan_in->show_held();
    while (replies.has_early()) {
        if (const PartGroup* const group = replies.whole_group()) {
            if (!give(*group)) return;
            continue;
        }
        const std::optional<EarlyReply> early = replies.early_first();
        if (!early) break;
        const uint32_t ticket = replies.first();
        const bool is_ours = early->what == What::Answer || early->what == What::Cut;
        if (is_ours) {
            output.append(early->bytes);
        } else {
            output.receive(early->bytes);
        }
        const What what = early->what;
        replies.drop_kept(ticket);
        if (is_ours) desk_.ledger.fail(ticket);
        if (what == What::Cut) {
            desk_.cut();
            return;
        }
        if (what == What::Part) break;  // The rest of it goes straight there.
        if (what == What::Whole) conversation_.on_reply(ticket);
        replies.close_first();
        output.commit();
    }
    desk_.flush_soon();
    if (desk_.owed() == 0) {
        conversation_.on_idle();
        desk_.pauses.unpause(kUntilIdle | kInFlight);
    } else if (desk_.owed() <= desk_.terms.limits.in_flight_per_client_max / 2) {
        desk_.pauses.unpause(kInFlight);
    }
}

void Session::on_slow_request(uint32_t ticket, const RequestTiming& timing, SlowEnd end) {
    if (desk_.has_ended() || context_.slow_log == nullptr) return;
    SlowEntry entry;
    entry.session = desk_.id;
    entry.request = ticket;
    if (desk_.tags != nullptr) entry.tag = desk_.tags->of(ticket);
    entry.has_failed = end == SlowEnd::Failure;
    entry.route =
        conversation_.has_lease() ? SlowEntry::Route::Dedicated : SlowEntry::Route::Shared;
    slow_.add(std::move(entry), timing, context_.node.latency(), *context_.slow_log);
}

void Session::enter_slow() {
    if (!slow_.empty()) slow_.enter(*context_.slow_log);
}

void Session::flush() {
    if (desk_.has_ended()) return;
    if (desk_.ledger.holds_replies()) {
        account();  // Replies come all the same.
        return;
    }
    Output& output = desk_.output;
    const size_t written = output.write(*stream_, context_.loop.large_piece());
    bytes_out_ += written;
    if (written > 0 && !output.has_whole_replies()) enter_slow();
    // The rest of a large reply follows in the next turn.
    if (output.has_more()) desk_.flush_soon();
    if (desk_.unsent() <= desk_.terms.limits.output_per_client_high_water / 2) {
        desk_.pauses.unpause(kOutput);
    }
    update_server_reading();
    account();
    if (desk_.is_cut() && output.is_done()) end();
    end_if_done();
}

// --- the end ---

void Session::end_if_done() {
    Tunnel* const tunnel = conversation_.tunnel();
    const bool is_sent_to = tunnel != nullptr || conversation_.fan_in() != nullptr;
    if (is_sent_to && desk_.output.is_lost()) end();
    if (desk_.has_ended() || !desk_.is_input_over()) return;
    if (desk_.pauses.any() || desk_.owed() > 0) return;
    if (tunnel != nullptr) return tunnel->finish_sending();
    if (desk_.output.is_done()) end();
}

void Session::end() {
    if (desk_.has_ended()) return;
    desk_.mark_ended();
    enter_slow();
    conversation_.end();
    desk_.ledger.close();
    stream_->pause_reading();
    context_.metrics.client_memory_bytes -= std::exchange(accounted_, 0);
    context_.metrics.client_spare_bytes -= std::exchange(spare_, 0);
    context_.events.on_session_ended(*this);
}

// --- facts and memory ---

ClientFacts Session::facts() const {
    const ClientState& client = desk_.client;
    return {.session = desk_.id,
            .fd = stream_->fd(),
            .protocol = client.protocol,
            .database = client.database,
            .identity = {.name = shown(client.identity.name),
                         .library = shown(client.identity.library),
                         .library_version = shown(client.identity.library_version)},
            .route = conversation_.route(),
            .commands = desk_.tally.commands(),
            .shared_hits = desk_.shared_hits.total,
            .bytes_in = bytes_in_,
            .bytes_out = bytes_out_,
            .buffered_bytes = memory_bytes(),
            .in_flight = desk_.owed(),
            .connected_ms = connected_ms_,
            .active_ms = active_ms_};
}

void Session::account() {
    Ledger& ledger = desk_.ledger;
    Transaction& transaction = conversation_.transaction();
    size_t held = input_.memory_bytes() + desk_.output.capacity() + desk_.replies.bytes() +
                  ledger.bytes() + conversation_.kept_bytes();
    // Its lease has been told its names, too.
    held += desk_.client.identity_bytes * (conversation_.has_lease() ? 2 : 1);
    if (ledger.capacity() > kRecordsFree || spare_ > 0) {
        const size_t records = ledger.record_bytes() + transaction.record_bytes();
        held += records;
        // The room of empty records is spare.
        const bool is_spare = ledger.is_empty() && !transaction.has_steps();
        const size_t spare = is_spare ? records : 0;
        context_.metrics.client_spare_bytes += spare - std::exchange(spare_, spare);
    }
    if (desk_.tags != nullptr) held += desk_.tags->memory_bytes();
    context_.metrics.client_memory_bytes += held - std::exchange(accounted_, held);
    if (context_.memory.is_short_of_buffers()) context_.events.on_memory_exceeded();
}

size_t Session::memory_bytes() const {
    if (!conversation_.has_lease()) return accounted_;
    // NearCache keeps the keys that a blocking command writes until it ends.
    return accounted_ + conversation_.lease_bytes() + desk_.ledger.write_bytes();
}

void Session::pause_for_memory() {
    if (desk_.has_ended()) return;
    desk_.pauses.pause(kMemory, nullptr);
    update_server_reading();
    if (spare_ > 0) shrink();
}

void Session::resume_after_memory() {
    if (desk_.has_ended()) return;
    desk_.pauses.unpause(kMemory);
    update_reading();
    update_server_reading();
}

void Session::shrink() {
    desk_.ledger.shrink();
    conversation_.transaction().shrink();
    slow_.shrink();
    if (!desk_.has_ended()) account();
}

}  // namespace nearkey
