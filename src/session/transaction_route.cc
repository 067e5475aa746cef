#include "nearkey/session/transaction_route.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/dispatch/placement.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/refusals.h"
#include "nearkey/upstream/own_question.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// A block that is longer than this goes over a lease, where it holds up nobody.
constexpr size_t kWholeBytesMax = size_t{1} << 20;
constexpr std::string_view kMulti = "*1\r\n$5\r\nMULTI\r\n";
constexpr std::string_view kDiscard = "*1\r\n$7\r\nDISCARD\r\n";
constexpr std::string_view kNotInside = "ERR Command not allowed inside a transaction";
// A call that no server queues: EXEC fails behind it.
constexpr std::string_view kSpoiler = "*1\r\n$3\r\nGET\r\n";
}  // namespace

std::optional<Executed> TransactionRoute::forward_whole(const Call& call, std::string_view rest,
                                                        SharedRoute& shared, Input& input) {
    // In a cluster a reply to one of them may have to go another way than the others.
    if (lease_ || desk_.context.cluster != nullptr) return std::nullopt;
    const Whole whole = encode_whole(rest);
    if (whole.size == 0) return std::nullopt;
    if (const auto executed = shared.pin(call.spec(), whole.commands)) {
        if (*executed == Executed::Yes) input.consumed = whole.size;
        return executed;
    }
    input.consumed = whole.size;
    for (CommandCount* const counts : desk_.context.whole_counts)
        desk_.tally.count_forwarded(*counts);
    desk_.ledger.note_shown();
    ++desk_.context.metrics.transactions_whole_total;
    desk_.client.has_written = true;
    const uint32_t ticket = desk_.replies.open(whole.commands);
    // All run with the last one, and its reply tells of them.
    desk_.ledger.begin_whole(ticket + whole.commands - 1, desk_.context.node, whole.reads);
    RequestTiming timing{.start_us = desk_.taken_up_us};
    timing.command = call.spec()->counts;
    timing.series = RequestTiming::series_of(CommandFamily::Transaction, RequestOutcome::Forwarded);
    shared.connection()->send({desk_.context.encoded, &desk_.receiver(), ticket, RequestKind::Write,
                               whole.commands, 0, timing});
    return Executed::Yes;
}

// Puts the commands into context.encoded, their writes into the ledgers' keys and scope.
TransactionRoute::Whole TransactionRoute::encode_whole(std::string_view rest) {
    SessionContext& context = desk_.context;
    LedgerContext& ledgers = context.ledgers;
    CommandParser& parser = context.lookahead;
    parser.begin_stream();
    context.encoded.clear();
    context.whole_counts.clear();
    ledgers.keys.clear();
    ledgers.scope = WriteScope::Keys;
    Whole whole;
    size_t size = 0;
    while (whole.commands < desk_.terms.limits.in_flight_per_client_max) {
        const ParseResult result = parser.next(rest.substr(size, kWholeBytesMax + 1 - size));
        if (result == ParseResult::Incomplete || result == ParseResult::Invalid) return {};
        size += parser.consumed();
        if (size > kWholeBytesMax) return {};
        if (result == ParseResult::Empty) continue;
        const CommandView& command = parser.command();
        // The arguments of one that is inline end with the next, and ledgers.keys are some of them.
        if (!command.is_canonical()) return {};
        const CommandSpec* const spec = context.node.catalog().commands().find(command);
        const bool is_first = whole.commands == 0;  // MULTI itself
        if (spec == nullptr) return {};
        if (!is_first && !may_go_whole(spec, command, desk_.terms.access)) return {};
        encode_command(command, context.encoded);
        context.whole_counts.push_back(spec->counts);
        ++whole.commands;
        if (is_first) continue;
        if (spec->special == Special::Exec || spec->special == Special::Discard) {
            whole.size = size;
            return whole;
        }
        whole.reads |= spec->tells_of_keys && !is_broken(Rule::WholeRead);
        ledgers.scope = std::max(ledgers.scope, find_writes(*spec, command, ledgers.keys));
    }
    return {};
}

Executed TransactionRoute::forward_step(const Call& call) {
    // In a cluster its first key says which node is to know of it.
    if (desk_.context.cluster != nullptr && call.special() == Special::Multi && call.is_sound() &&
        !transaction_.is_open()) {
        transaction_.owe();
        desk_.answer(call.spec(), "+OK\r\n");
        return Executed::Yes;
    }
    // A script before it may go on at another node, and the lease with it.
    const bool may_move = desk_.context.cluster != nullptr && !transaction_.is_open();
    if (may_move && desk_.owed() > 0) return desk_.wait_until_idle();
    if (const auto executed = lease_.take(call)) return *executed;
    const bool is_watch = call.spec()->special == Special::Watch;
    lease_->use().set_when_refused(is_watch ? WhenRefused::Wait : WhenRefused::Fail);
    transaction_.begin_step(desk_.replies.next(), call.spec()->special);
    lease_.send(call, lease_.behind(RequestKind::Write));
    return Executed::Yes;
}

Executed TransactionRoute::forward_refused(const Call& call) {
    if (const auto executed = lease_.take(call)) return *executed;
    desk_.count_forwarded(call.spec());
    desk_.tally.count_error(call.spec(), refusal_of(desk_.context.node, call));
    ++desk_.context.metrics.commands_refused_total;
    const bool is_exec = call.special() == Special::Exec;
    const std::string bytes = !is_exec              ? stand_in_for(call)
                              : call.plan.is_queued ? std::string(kDiscard)
                                                    : std::string(kUnwatchCommand);
    if (is_exec) desk_.ledger.forget_queued();
    const uint32_t ticket = desk_.replies.open(1);
    transaction_.begin_step(ticket, is_exec ? Special::RefusedExec : Special::Refused);
    lease_->send({bytes, &desk_.receiver(), ticket, lease_.behind(RequestKind::Write)});
    return Executed::Yes;
}

void TransactionRoute::finish_step() {
    const Special what = transaction_.step();
    Output& output = desk_.output;
    transaction_.finish_step(output.reply(), output.is_error());
    if (output.is_lost()) return;
    if (what == Special::Refused) {
        output.replace(in_words_of_refusal(desk_.context.node, output.reply()));
    } else if (what == Special::RefusedExec) {
        std::string text;
        append_error(text, exec_refusal(desk_.context.node));
        output.replace(text);
    }
}

// What came over a lease is not sent on: it may be a part of a transaction, or a script's own word.
// The next try goes where it belongs.
void TransactionRoute::reword_redirect(uint32_t ticket) {
    using Kind = Redirect::Kind;
    Output& output = desk_.output;
    const auto redirect = read_redirect(output.reply());
    if (!redirect) return;
    desk_.context.cluster->doubt();
    if (redirect->kind != Kind::Moved && redirect->kind != Kind::Ask) return;
    const bool is_exec = transaction_.is_step(ticket) && transaction_.step() == Special::Exec;
    if (lease_.may_say_anything()) {
        output.replace(
            fmt::format("-TRYAGAIN slot {} moved, by the word of its node or of the script; "
                        "may have run\r\n",
                        redirect->slot));
        return;
    }
    const bool is_known =
        redirect->slot >= 0 &&
        !lease_.is_of(desk_.context.cluster->owner(static_cast<uint16_t>(redirect->slot)));
    if (is_known && transaction_.is_open()) {
        output.replace("-CROSSSLOT Keys of a transaction must be of slots of one node\r\n");
        return;
    }
    output.replace(
        is_exec
            ? fmt::format("-EXECABORT Transaction discarded: slot {} moved, nothing was run\r\n",
                          redirect->slot)
            : fmt::format("-TRYAGAIN slot {} moved; not run\r\n", redirect->slot));
}

void TransactionRoute::lose() {
    ++desk_.context.metrics.clients_closed_state_total;
    desk_.warn("client_closed", "the upstream connection of its transaction was lost");
    transaction_.lose();
    lease_.spoil();
    desk_.stop_input();
}

// The connection for a transaction could not be set up: the server is busy with a script, and
// refuses our SELECT. MULTI it would have taken, and nothing behind it. So the client is told that
// MULTI was taken, which the server learns with the next command that it takes (begin_owed).
std::string TransactionRoute::fail(uint32_t ticket, std::string_view error) {
    const bool is_step = transaction_.is_step(ticket);
    const Special what = is_step ? transaction_.step() : Special::None;
    const bool is_first = what == Special::Multi && transaction_.has_nothing();
    const bool is_nothing_lost = transaction_.is_owed() || transaction_.has_nothing();
    if (!error.starts_with("BUSY ") || !is_nothing_lost) {
        lose();
        std::string reply;
        append_error(reply, error);
        return reply;
    }
    if (is_step) transaction_.drop_step();
    if (is_first) {
        transaction_.owe();
        return "+OK\r\n";
    }
    return fail_owed(what, error);
}

// The server's answer to a command that comes in MULTI while it is busy.
std::string TransactionRoute::fail_owed(Special what, std::string_view error) {
    std::string reply;
    if (what == Special::Discard && transaction_.is_owed()) {
        transaction_.leave();
        desk_.ledger.forget_queued();
        return "+OK\r\n";
    }
    if (what == Special::Exec) {
        transaction_.leave();
        append_error(reply, fmt::format("EXECABORT Transaction discarded because of: {}", error));
        return reply;
    }
    if (transaction_.is_owed()) transaction_.spoil();
    append_error(reply, error);
    return reply;
}

// In a cluster the first key says which node is to know of the transaction: not this command.
bool TransactionRoute::has_no_node(const Call& call) const {
    if (desk_.context.cluster == nullptr || transaction_.is_tied()) return false;
    if (!call.is_sound()) return true;
    const Special special = call.special();
    if (special == Special::Exec || special == Special::Discard) return false;
    if (special == Special::Watch || call.plan.is_refused()) return true;
    const Placement placement = place(call.spec(), call.command, desk_.context.ledgers.keys);
    return placement.where == Placement::Where::Anywhere;
}

// Servers refuse some commands in MULTI, or for reasons of their own: those of administrators.
bool TransactionRoute::is_surely_queued(const Call& call) const {
    if (!call.is_sound()) return false;
    const CommandSpec& spec = *call.spec();
    const bool leaves_nothing = spec.route == Route::Shared || spec.route == Route::Dedicated;
    if (!leaves_nothing) return false;
    return spec.special == Special::Script ||
           (spec.special == Special::None && (spec.may_repeat || spec.waits_in_pause));
}

// False: there is no room for it.
bool TransactionRoute::keep(const Call& call) {
    const Route route = call.spec() == nullptr ? Route::Unproven : call.spec()->route;
    const std::string shown =
        call.plan.hides_secrets ? without_secrets(desk_.context.node, call.command) : std::string();
    const std::string_view bytes = shown.empty() ? desk_.canonical(call.command) : shown;
    if (!transaction_.keep(bytes, route, call.special())) return false;
    Node& home = desk_.context.cluster->home();
    desk_.note_shown_reply(call, {home, home.shared().primary(), false});
    desk_.answer(call.spec(), "+QUEUED\r\n");
    return true;
}

// Any node says whether the command is queued in MULTI, or what is wrong with it, so that it does
// not tie the transaction to one. Nothing: it has to.
std::optional<Executed> TransactionRoute::judge(const Call& call) {
    if (call.plan.is_refused()) {
        ++desk_.context.metrics.commands_refused_total;
        transaction_.spoil();
        desk_.answer_error(call.spec(), refusal_of(desk_.context.node, call));
        return Executed::Yes;
    }
    using State = Lease::Preparation::State;
    if (lease_.preparation().state == State::None) {
        if (is_surely_queued(call) && keep(call)) return Executed::Yes;
        if (desk_.owed() > 0) return desk_.wait_until_idle();
        if (const auto executed = lease_.take_at(desk_.context.cluster->home(), call)) {
            if (*executed == Executed::Yes) transaction_.spoil();
            return executed;
        }
        lease_->send({kMulti, &desk_.context.node.discard(), 0, RequestKind::Write});
        lease_.prepare(desk_.canonical(call.command), WhenRefused::Fail);
        return Executed::NotYet;
    }
    const Lease::Preparation done = lease_.take_preparation();
    if (lease_) lease_->send({kDiscard, &desk_.context.node.discard(), 0, RequestKind::Write});
    lease_.note_reply(!done.error.empty());
    lease_.end();
    if (done.error.empty()) {
        if (keep(call)) return Executed::Yes;
        transaction_.tie();
        return std::nullopt;
    }
    // Older servers say what is wrong with MULTI and WATCH there, and EXEC runs all the same.
    const bool is_step = call.special() == Special::Multi || call.special() == Special::Watch;
    const bool is_run = is_step && call.is_sound() && !done.error.starts_with(kNotInside);
    if (!is_run) transaction_.spoil();
    // A call of EXEC that is none ends the transaction all the same.
    if (call.special() == Special::Exec) {
        transaction_.leave();
        desk_.ledger.forget_queued();
    }
    desk_.answer_error(call.spec(), done.error);
    return Executed::Yes;
}

std::optional<Executed> TransactionRoute::begin_owed(const Call& call) {
    const Special what = call.is_sound() ? call.special() : Special::None;
    if (has_no_node(call)) {
        if (const auto executed = judge(call)) return *executed;
    }
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (lease_.preparation().state == Lease::Preparation::State::None) {
        // One may be left of a command before MULTI.
        if (lease_ && (what == Special::Discard || !lease_->is_ready())) lease_.end();
        if (what == Special::Discard) {
            desk_.answer(call.spec(), fail_owed(what, {}));
            return Executed::Yes;
        }
        if (const auto executed = lease_.take(call)) {
            if (*executed == Executed::Yes) transaction_.spoil();
            return executed;
        }
        lease_.prepare(kMulti, WhenRefused::Fail);
        return Executed::NotYet;
    }
    const std::string error = lease_.take_preparation().error;
    if (error.empty()) {
        const bool is_spoilt = transaction_.is_spoilt();
        if (transaction_.kept_commands() > 0) {
            lease_->send({transaction_.kept(), &desk_.context.node.discard(), 0, RequestKind::Write,
                          transaction_.kept_commands()});
            if (transaction_.keeps_scripts()) lease_.expect_any_text();
            if (transaction_.keeps_unproven()) lease_.spoil();
        }
        transaction_.settle();
        if (is_spoilt) {
            lease_->send({kSpoiler, &desk_.context.node.discard(), 0, RequestKind::Write});
        }
        return std::nullopt;
    }
    lease_.end();
    if (error.starts_with("BUSY ")) {
        desk_.answer(call.spec(), fail_owed(what, error));
    } else {
        desk_.answer_error(call.spec(), error);
        lose();
    }
    return Executed::Yes;
}

}  // namespace nearkey
