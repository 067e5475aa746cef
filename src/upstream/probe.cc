#include "nearkey/upstream/probe.h"

#include "nearkey/base/check.h"
#include "nearkey/base/random.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/upstream/connection.h"

#include <fmt/format.h>

#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kHello = "*1\r\n$5\r\nHELLO\r\n";
constexpr std::string_view kHeartbeat = "*1\r\n$5\r\nHELLO\r\n*1\r\n$4\r\nPING\r\n";

// In place of PING.
bool asks_ownership(const ConnectionContext& context) {
    return !context.ownership_question.empty() && !is_broken(Rule::Ownership);
}
}  // namespace

void Probe::note_ready(const Value& hello, const Pong& pong) {
    const Value* const id = hello.find("id");
    server_id_ = id == nullptr ? 0 : id->integer;
    was_replica_ = is_replica_ = nearkey::is_replica(hello);
    is_trustworthy_ = true;
    pong_ = pong;
}

void Probe::end() {
    is_trustworthy_ = false;
    proven_ms_ = proven_before_ms_ = 0;
    heartbeat_ms_ = 0;
    expected_word_.clear();
}

void Probe::send_heartbeat() {
    if (!pipeline_.is_ready() || is_beating()) return;
    heartbeat_ms_ = context_.loop.now_ms();
    heartbeat_boot_ms_ = Loop::boot_ms();
    if (!asks_ownership(context_)) {
        pipeline_.ask(*this, Role, kHeartbeat, 2);
    } else {
        pipeline_.ask(*this, Role, std::string(kHello) + context_.ownership_question, 2);
    }
}

void Probe::say_password(const UpstreamUrl& url) {
    std::string command;
    append_command(command, {"AUTH", url.user.empty() ? "default" : url.user, url.password});
    pipeline_.ask(*this, Access, command, 1);
    ++context_.metrics.reauthentications_total;
}

bool Probe::is_mute(uint64_t now_ms) const {
    const UpstreamOptions& options = context_.options;
    return is_beating() &&
           heartbeat_ms_ + options.request_timeout_ms + options.tombstone_timeout_ms < now_ms;
}

void Probe::suspect() {
    NEARKEY_CHECK(pipeline_.is_ready() && !connection_.tunnel().is_open());
    pipeline_.hold_back();
    // A lease may be in a transaction, whose reply HELLO would be a part of: others are asked.
    is_trustworthy_ = connection_.use().is_leased();
    if (!is_trustworthy_) pipeline_.ask(*this, Trust, kHello, 1);
}

void Probe::challenge() {
    NEARKEY_CHECK(pipeline_.is_ready() && pipeline_.is_idle());
    const std::string word = fmt::format("nearkey:{:016x}{:016x}", random_word(), random_word());
    append_bulk(expected_word_, word);
    std::string command;
    append_command(command, {"PING", word});
    ++context_.metrics.upstream_challenges_total;
    pipeline_.ask(*this, Challenge, command, 1);
}

void Probe::on_whole_reply(uint32_t ticket, const std::string& reply) {
    if (ticket == Challenge) {
        on_challenge_reply(reply);
        return;
    }
    const OwnCommand command = ticket == Access ? OwnCommand::Auth : OwnCommand::Hello;
    if (ticket != Ping && !has_answered(connection_, command, reply)) return;
    const Value value = parse_value(reply).value_or(Value{});
    if (ticket == Ping) {
        on_pong(value);
        return;
    }
    if (ticket == Access) {
        note_access(value);
        return;
    }
    note_role(value);
    if (ticket == Trust) note_trust();
}

// The connection keeps the rights that it has.
void Probe::note_access(const Value& reply) {
    if (reply.is_error()) context_.events.on_auth_refused(connection_, reply.text);
}

// A server that does not say keeps its role.
void Probe::note_role(const Value& hello) {
    if (hello.text_of("role").empty() || is_broken(Rule::OwnershipBeat)) return;
    is_replica_ = nearkey::is_replica(hello);
}

void Probe::note_trust() {
    if (is_demoted()) {
        context_.events.on_demoted(connection_);
    } else if (pipeline_.is_held_back()) {
        is_trustworthy_ = true;
        context_.events.on_trustworthy(connection_);
    }
}

void Probe::on_pong(const Value& reply) {
    heartbeat_ms_ = 0;
    const bool is_owner = reply.type == ':' && context_.redirects != nullptr;
    if (reply.text != "PONG" && !reply.is_error() && !is_owner) {
        connection_.lose("another reply than that to PING", ConnectionLoss::Malformed);
        return;
    }
    if (reply.text.starts_with("NOAUTH")) {
        context_.events.on_auth_refused(connection_, reply.text);
        connection_.lose(reply.text, ConnectionLoss::Auth);
        return;
    }
    const auto redirect = reply.is_error() ? read_redirect(reply.text) : std::nullopt;
    const bool is_sent_on = redirect && (redirect->kind == Redirect::Kind::Moved ||
                                         redirect->kind == Redirect::Kind::Ask);
    pong_ = is_owner || is_sent_on ? Pong{.serves = true} : read_pong(reply).value_or(Pong{});
    if (is_demoted()) {
        context_.events.on_demoted(connection_);
        return;
    }
    // A refusal stands behind the news as well; one by a server that runs nothing proves nothing,
    // nor does one by a server that should own a slot.
    const bool proves = pong_.serves && (is_owner || !asks_ownership(context_));
    if (proves) proven_before_ms_ = std::exchange(proven_ms_, heartbeat_boot_ms_);
    if (is_sent_on) context_.events.on_role_doubted(connection_);
    if (reply.text.starts_with("NOPERM") && asks_ownership(context_)) {
        note_ownership_hidden(reply.text);
    }
    context_.events.on_heartbeat(connection_);
}

void Probe::note_ownership_hidden(const std::string& refusal) {
    if (!context_.failures.is_news("ownership")) return;
    context_.log.warning(
        "near_cache_off",
        {{"reason", refusal},
         {"what",
          "nearkey's user may not run EXISTS on nearkey:*, so that a node can't prove that "
          "it owns its slots: nothing of it is stored or served here"}});
}

void Probe::on_challenge_reply(std::string_view reply) {
    if (reply == std::exchange(expected_word_, {})) return;
    // A server that refuses PING (MISCONF, BUSY) proves nothing, and does nothing wrong.
    if (reply.starts_with('-')) {
        connection_.close("not proven to owe nothing");
    } else {
        connection_.lose("another reply than that to PING", ConnectionLoss::Malformed);
    }
}

}  // namespace nearkey
