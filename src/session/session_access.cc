// Commands that the listener's rules refuse. Where nothing of the session is on a connection of its
// own, nearkey answers. Elsewhere the server must know, for its replies are in an order that only
// it can tell (a subscriber's), and a transaction with a refused command must not run: it is sent a
// command that it can't know, which it refuses at the same place, and its error is exchanged for
// the one that Valkey has for a command that an ACL rule refuses. A refused EXEC ends the
// transaction all the same: it is sent DISCARD or UNWATCH. (In a tunnel, where nobody knows which,
// the transaction stays, and can't be ended but by DISCARD.)
#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/config_get.h"
#include "nearkey/upstream/handshake.h"

#include <fmt/format.h>

namespace nearkey {

namespace {
constexpr std::string_view kStandIn = "nearkey:refused:";
// Before the name in Valkey's error, with a quote behind it.
constexpr std::string_view kUnknown = "-ERR unknown command ";
constexpr size_t kNameMax = 64;

// What a client may call a command can be anything; what we say of it is a word.
std::string name_of(const CommandSpec* spec, const CommandView& command) {
    std::string name(spec != nullptr ? std::string_view(spec->name)
                                     : command[0].substr(0, kNameMax));
    for (char& c : name)
        c = c > ' ' && c < 127 && c != '\'' && c != '`' ? c : '?';
    return name;
}

// As the server's own error names the user.
std::string refusal(const ConnectionPool& pool, std::string_view name) {
    const std::string who =
        is_redis_7_0(pool.hello()) ? "this user" : fmt::format("User {}", pool.user());
    return fmt::format("NOPERM {} has no permissions to run the '{}' command", who, name);
}

// Of EXEC, in a transaction or not.
std::string exec_refusal(const ConnectionPool& pool) {
    return "EXECABORT Transaction discarded because of: " + refusal(pool, "exec");
}

std::string encoded(std::string_view word, std::string_view more) {
    std::string bytes;
    append_array_header(bytes, 1);
    append_bulk(bytes, fmt::format("{}{}", word, more));
    return bytes;
}
}  // namespace

// A call that the server will not run is not refused: it says itself what is wrong with it.
bool Session::is_refused(const CommandSpec* spec, const CommandView& command) const {
    if (spec == nullptr) {
        const CommandSpec* const container = context_.pool.commands().find_name(command[0]);
        return !terms_.access.allows_unknown(container, command);
    }
    return !terms_.access.allows(*spec, command) && spec->accepts(command.size());
}

Session::Executed Session::refuse(const CommandView& command) {
    const std::string name = name_of(spec_, command);
    const bool is_exec = spec_ != nullptr && spec_->special == Special::Exec;
    if (tunnel_ == nullptr && !is_in_transaction()) {
        ++context_.metrics.commands_refused_total;
        answer_error(is_exec ? exec_refusal(context_.pool) : refusal(context_.pool, name));
        return Executed::Yes;
    }
    if (tunnel_ == nullptr) {
        if (const auto executed = take_lease()) return *executed;
    }
    ++commands_;
    ++context_.metrics.commands_refused_total;
    ++context_.metrics.commands_forwarded_total;
    if (tunnel_ != nullptr) {
        tunnel_->has_refused = true;
        lease_->send_through(encoded(kStandIn, name));
        return Executed::Yes;
    }
    const std::string bytes = !is_exec            ? encoded(kStandIn, name)
                              : may_be_in_multi() ? encoded("DISCARD", "")
                                                  : encoded("UNWATCH", "");
    if (is_exec) forget_queued();
    steps_.push_back({next_ticket_, is_exec ? Special::RefusedExec : Special::Refused});
    const RequestKind kind = lease_blocks_ ? RequestKind::Blocking : RequestKind::Write;
    lease_->send({bytes, this, next_ticket_++, kind});
    return Executed::Yes;
}

// CONFIG GET that would show a password shows all else. False: it must be refused. `instead` is the
// call to send for it, unless that is empty.
bool Session::hide_secrets(const CommandView& command, std::string& instead) {
    if (spec_ == nullptr || spec_->special != Special::ConfigGet) return true;
    if (terms_.access.shows_secrets() || !spec_->accepts(command.size())) return true;
    return leave_out_secrets(command, context_.pool.parameters(), instead) !=
           ConfigGetSecrets::Unknown;
}

Session::Executed Session::forward_config_get(const CommandView& command) {
    std::string instead;
    if (!hide_secrets(command, instead)) return refuse(command);
    if (instead.empty()) return forward_alone(command, RequestKind::Read);
    CommandParser parser(static_cast<int64_t>(instead.size()));
    const ParseResult parsed = parser.next(instead);
    CHECK(parsed == ParseResult::Command);
    return forward_alone(parser.command(), RequestKind::Read);
}

// The server's reply to what was sent in place of a refused command is in output_ behind
// committed_.
void Session::finish_refusal(Special what, std::string_view reply) {
    if (output_lost_) return;
    std::string text;
    if (what == Special::Refused) {
        text = in_words_of_refusal(reply);
    } else {
        append_error(text, exec_refusal(context_.pool));
    }
    output_.truncate(committed_);
    output_.append(text);
}

// The error to a command that was sent in place of a refused one, in the words of the refusal;
// every other reply as it is.
std::string Session::in_words_of_refusal(std::string_view reply) const {
    const size_t start = kUnknown.size() + 1 + kStandIn.size();
    if (!reply.starts_with(kUnknown) || reply.size() <= start ||
        reply.substr(kUnknown.size() + 1, kStandIn.size()) != kStandIn) {
        return std::string(reply);
    }
    const std::string_view name = reply.substr(start, reply.find_first_of("'`", start) - start);
    std::string text;
    append_error(text, refusal(context_.pool, name));
    return text;
}

}  // namespace nearkey
