// Transactions: one that has arrived whole travels as one piece over the shared connection; any
// other has a lease until the server says that nothing is left of it.
#include "nearkey/session/session.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// A block that is longer than this goes over a lease, where it holds up nobody.
constexpr size_t kWholeBytesMax = size_t{1} << 20;
constexpr std::string_view kMulti = "*1\r\n$5\r\nMULTI\r\n";
// A call that no server queues: EXEC fails behind it.
constexpr std::string_view kSpoiler = "*1\r\n$3\r\nGET\r\n";
}  // namespace

Session::Executed Session::execute_transaction(const CommandSpec& spec, const CommandView& command,
                                               std::string_view input) {
    switch (spec.special) {
        case Special::Multi:
            if (const auto executed = forward_whole(input)) return *executed;
            return forward_step(spec.special, command);
        case Special::Watch:
            return forward_step(spec.special, command);
        default:
            // Without a transaction they change nothing.
            return forward(command, RequestKind::Write);
    }
}

Session::Executed Session::execute_in_transaction(const CommandSpec& spec,
                                                  const CommandView& command) {
    if (spec.route == Route::Close) {
        close_attacker();
        return Executed::Yes;
    }
    const bool is_answered_here = spec.special == Special::Quit || spec.special == Special::Reset ||
                                  spec.special == Special::Nearkey;
    if (multi_owed_ && !is_answered_here) {
        if (const auto executed = begin_owed(&spec, command)) return *executed;
    }
    // A refused EXEC ends the transaction; any other refused call leaves it (rejectCommand).
    if (!spec.accepts(command.size())) {
        return spec.special == Special::Exec ? forward_step(spec.special, command)
                                             : forward_alone(command, RequestKind::Write);
    }
    if (!terms_.access.allows(spec, command)) return refuse(command);
    switch (spec.route) {
        case Route::Transaction:
            return forward_step(spec.special, command);
        case Route::Unproven:
            return forward_unproven(command);
        case Route::Tunnel:
            return enter_tunnel(&spec, command);
        case Route::Local:
            if (is_answered_here) return execute_local(spec, command);
            // EXEC will do what nearkey does for a session: from now on the server keeps all of it.
            return enter_tunnel(&spec, command);
        default:
            break;
    }
    if (spec.may_say_anything()) return forward_script(command, RequestKind::Write);
    if (spec.special == Special::ConfigGet) return forward_config_get(command);
    if (may_be_in_multi()) return forward_alone(command, RequestKind::Write);
    if (spec.special == Special::Wait) return forward_wait(command);
    const bool may_wait = spec.is_blocking && (!spec.blocks_by_option || has_block_option(command));
    return forward_alone(command, may_wait ? RequestKind::Blocking : RequestKind::Write);
}

// Nothing if the input does not hold the whole of the transaction, or it holds what must not go
// over a shared connection.
std::optional<Session::Executed> Session::forward_whole(std::string_view input) {
    uint32_t commands = 0;
    if (lease_ != nullptr) return std::nullopt;
    const size_t size = encode_whole(input, commands);
    if (size == 0) return std::nullopt;
    if (const auto executed = pin(commands)) {
        if (*executed == Executed::Yes) consumed_ = size;
        return executed;
    }
    consumed_ = size;
    commands_ += commands;
    context_.metrics.commands_forwarded_total += commands;
    ++context_.metrics.transactions_whole_total;
    has_written_ = true;
    const uint32_t ticket = std::exchange(next_ticket_, next_ticket_ + commands);
    // They run with the last one, and so does its reply tell of them.
    const uint32_t last = ticket + commands - 1;
    if (context_.cache != nullptr) {
        begin_whole(last);
        if (multi_reads_) unstored_reads_.push_back({last, UnstoredRead::What::SharedRead, 0});
    }
    multi_reads_ = false;
    RequestTiming whole{.start_us = command_us_};
    whole.command = spec_->shown_name;
    whole.series = RequestTiming::series_of(CommandFamily::Transaction, RequestOutcome::Forwarded);
    connection_->send({context_.encoded, this, ticket, RequestKind::Write, commands, 0, whole});
    return Executed::Yes;
}

// Puts the commands from MULTI to EXEC or DISCARD into context_.encoded. How many bytes of `input`
// they are, or 0.
size_t Session::encode_whole(std::string_view input, uint32_t& commands) {
    CommandParser& parser = context_.lookahead;
    parser.restart();
    context_.encoded.clear();
    context_.keys.clear();
    context_.scope = WriteScope::Keys;
    multi_reads_ = false;
    size_t size = 0;
    for (commands = 0; commands < terms_.limits.in_flight_per_client_max;) {
        const ParseResult result = parser.next(input.substr(size, kWholeBytesMax + 1 - size));
        if (result == ParseResult::Incomplete || result == ParseResult::Invalid) return 0;
        size += parser.consumed();
        if (size > kWholeBytesMax) return 0;
        if (result == ParseResult::Empty) continue;
        const CommandView& command = parser.command();
        const CommandSpec* spec = context_.pool.commands().find(command);
        if (spec == nullptr || !spec->accepts(command.size())) return 0;
        if (!terms_.access.allows(*spec, command)) return 0;
        encode_command(command, context_.encoded);
        ++commands;
        if (spec->special == Special::Exec || spec->special == Special::Discard) return size;
        const bool is_first = commands == 1;  // MULTI itself
        if (!is_first && spec->route != Route::Shared) return 0;
        multi_reads_ |= spec->tells_of_keys && !is_broken(Rule::WholeRead);
        if (spec->writes != WriteScope::Nothing && !is_first) {
            const bool is_known = spec->find_keys(command, context_.keys);
            context_.scope =
                std::max(context_.scope, is_known ? spec->writes : WriteScope::Everything);
        }
    }
    return 0;
}

Session::Executed Session::forward_step(Special what, const CommandView& command) {
    if (const auto executed = take_lease()) return *executed;
    steps_.push_back({next_ticket_, what});
    lease_->when_refused = what == Special::Watch ? WhenRefused::Wait : WhenRefused::Fail;
    send(*lease_, command, lease_blocks_ ? RequestKind::Blocking : RequestKind::Write);
    return Executed::Yes;
}

// The reply to a step is whole: reply_type_, and in output_ behind committed_ unless it can't be
// written any more.
void Session::finish_step(Special what) {
    const std::string_view reply =
        output_lost_ ? std::string_view{} : output_.view().substr(committed_);
    const bool is_error = reply_type_ == '-';
    switch (what) {
        case Special::Multi:
            in_multi_ |= !is_error;
            break;
        case Special::Watch:
            watching_ |= !is_error;
            break;
        case Special::Exec:
            // With whatever words it fails, nothing is left; but without MULTI it ends no WATCH.
            in_multi_ = false;
            watching_ &= is_error && (reply.empty() || reply.starts_with("-ERR EXEC without"));
            break;
        case Special::Discard:
            if (!is_error) in_multi_ = watching_ = false;
            break;
        case Special::Unwatch:
            if (!is_error && !in_multi_) watching_ = false;
            break;
        case Special::RefusedExec:
            if (!is_error) in_multi_ = watching_ = false;
            [[fallthrough]];
        case Special::Refused:
            finish_refusal(what, reply);
            break;
        default:
            break;
    }
}

bool Session::may_be_in_multi() {
    bool result = in_multi_;
    for (size_t i = 0; i < steps_.size(); ++i) {
        const Special what = steps_[i].what;
        if (what == Special::Multi) result = true;
        if (what == Special::Exec || what == Special::Discard || what == Special::RefusedExec) {
            result = false;
        }
    }
    return result;
}

// What the client would send next would run outside of its transaction: it must not. As with a
// connection of its own that is lost, the client is closed.
void Session::lose_transaction() {
    ++context_.metrics.clients_closed_state_total;
    warn("client_closed", "the upstream connection of its transaction was lost");
    leave_transaction();
    steps_.clear();
    lease_dirty_ = true;
    stop_input();
}

// The connection for a transaction could not be set up: the server is busy with a script, and
// refuses our SELECT. MULTI it would have taken, and nothing behind it. So the client is told that
// MULTI was taken, which the server learns with the next command that it takes (begin_owed).
std::string Session::fail_in_transaction(uint32_t ticket, std::string_view error) {
    const bool is_step = !steps_.empty() && steps_.front().ticket == ticket;
    const Special what = is_step ? steps_.front().what : Special::None;
    const bool is_first = what == Special::Multi && !in_multi_ && !watching_;
    const bool is_nothing_lost = is_first || multi_owed_ || (!in_multi_ && !watching_);
    std::string reply;
    if (!error.starts_with("BUSY ") || !is_nothing_lost) {
        lose_transaction();
        append_error(reply, error);
        return reply;
    }
    if (is_step) steps_.pop_front();
    if (is_first) {
        in_multi_ = multi_owed_ = true;
        return "+OK\r\n";
    }
    return fail_owed(what, error);
}

// What the server would say to a command that comes in MULTI while it is busy.
std::string Session::fail_owed(Special what, std::string_view error) {
    std::string reply;
    if (what == Special::Discard && multi_owed_) {
        leave_transaction();
        return "+OK\r\n";
    }
    if (what == Special::Exec) {
        leave_transaction();
        append_error(reply, fmt::format("EXECABORT Transaction discarded because of: {}", error));
        return reply;
    }
    multi_spoilt_ = multi_owed_;
    append_error(reply, error);
    return reply;
}

// Nothing: the server knows of MULTI now, and that it must fail if something of it was refused.
std::optional<Session::Executed> Session::begin_owed(const CommandSpec* spec,
                                                     const CommandView& command) {
    const bool is_call = spec != nullptr && spec->accepts(command.size());
    const Special what = is_call ? spec->special : Special::None;
    if (owed() > 0) return wait_until_idle();
    if (preparation_ == Preparation::None) {
        if (lease_ != nullptr && !lease_->is_ready()) end_lease();
        if (what == Special::Discard) {
            answer(fail_owed(what, {}));
            return Executed::Yes;
        }
        if (const auto executed = take_lease()) {
            if (*executed == Executed::Yes) multi_spoilt_ = true;
            return executed;
        }
        prepare(kMulti, WhenRefused::Fail);
        return Executed::NotYet;
    }
    preparation_ = Preparation::None;
    if (preparation_error_.empty()) {
        multi_owed_ = false;
        const bool is_spoilt = std::exchange(multi_spoilt_, false);
        if (is_spoilt) lease_->send({kSpoiler, &context_.pool.discard(), 0, RequestKind::Write});
        return std::nullopt;
    }
    const std::string error = std::exchange(preparation_error_, {});
    end_lease();
    if (error.starts_with("BUSY ")) {
        answer(fail_owed(what, error));
    } else {
        answer_error(error);
        lose_transaction();
    }
    return Executed::Yes;
}

}  // namespace nearkey
