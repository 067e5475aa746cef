// Tunnels: the session's commands change the connection itself, so it has one to itself, with
// exactly its state, and what the server says there is passed on as it comes.
#include "nearkey/session/session.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kReset = "+RESET\r\n";
constexpr std::string_view kResetPing = "*2\r\n$4\r\nPING\r\n$13\r\nnearkey:reset\r\n";
constexpr std::string_view kResetPong = "$13\r\nnearkey:reset\r\n";
// So much of each reply is looked at: the longest is the error to a stand-in (session_access.cc).
constexpr size_t kFollowedMax = 256;
// PING is refused in more states than RESET.
bool is_reply_to_reset_ping(std::string_view reply) {
    for (const std::string_view code : {"-NOAUTH", "-BUSY", "-LOADING", "-MASTERDOWN", "-NOPERM"}) {
        if (reply.starts_with(code)) return true;
    }
    return reply == kResetPong;
}

}  // namespace

Session::Executed Session::enter_tunnel(const CommandSpec* spec, const CommandView& command) {
    if (owed() > 0) return wait_until_idle();
    if (const auto executed = take_lease()) return *executed;
    // WAIT must count what went over other connections.
    if (has_written_ && !in_multi_ && preparation_ == Preparation::None) {
        lease_->send({kMark, &context_.pool.discard(), 0, RequestKind::Write});
    }
    // Valkey swallows the error of an AUTH that is pipelined (addAuthErrReply in networking.c), so
    // nothing of ours may be in flight before the client's command.
    const bool is_proven = lease_->is_ready() && lease_->is_idle();
    if (const auto executed = prove_lease(is_proven)) return *executed;
    leave_connection();
    tunnel_ = std::make_unique<Tunnel>();
    ++context_.metrics.upstream_tunnels;
    in_multi_ = watching_ = false;  // The server knows.
    lease_->begin_tunnel();
    return pass_through(spec, command);
}

Session::Executed Session::pass_through(const CommandSpec* spec, const CommandView& command) {
    if (is_refused(spec, command)) return refuse(command);
    std::string instead;
    if (!hide_secrets(command, instead)) return refuse(command);
    ++commands_;
    ++context_.metrics.commands_forwarded_total;
    has_written_ = true;
    if (context_.cache != nullptr) note_through(spec, command);
    lease_->send_through(instead.empty() ? canonical(command) : instead);
    if (lease_->unsent_bytes() >= terms_.limits.output_per_client_high_water) {
        lease_->tell_of_room();
        pause(kServer, &context_.metrics.clients_paused_output_total);
    }
    if (spec == nullptr || !spec->accepts(command.size())) return Executed::Yes;
    if (spec->special == Special::Sync) tunnel_->is_unread = true;
    if (spec->special == Special::Monitor && !std::exchange(tunnel_->is_monitor, true)) {
        if (context_.cache != nullptr) context_.cache->add_monitor();
    }
    if (spec->special == Special::Reset && !tunnel_->is_unread) {
        tunnel_->is_resetting = true;
        lease_->send_through(kResetPing);
        pause(kLease, nullptr);
    }
    return Executed::Yes;
}

void Session::on_tunnel_bytes(std::string_view bytes) {
    if (ended_) return;
    const bool is_reset = follow_replies(bytes);
    if (output_lost_) output_.truncate(0);
    committed_ = output_.size();
    flush_hook_.defer();
    if (is_reset) {
        leave_tunnel();
        change_way();
        forget_state();
        unpause(kLease | kServer);
        return;
    }
    update_tunnel_reading();
    account();
}

// Passes the replies on. True when the one to RESET was there: it is the "+RESET" with the reply to
// our own PING behind it, which is held back (any other command may say "+RESET" too).
bool Session::follow_replies(std::string_view bytes) {
    while (!tunnel_->is_unread && !bytes.empty()) {
        size_t taken = 0;
        const ScanResult result = tunnel_->scanner.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            tunnel_->is_unread = true;
            break;
        }
        const std::string_view piece = bytes.substr(0, taken);
        bytes.remove_prefix(taken);
        std::string& reply = tunnel_->reply;
        const size_t before = reply.size();
        if (before == 0) tunnel_->is_error = tunnel_->has_refused && piece.starts_with('-');
        const bool is_held = tunnel_->is_held || tunnel_->is_error;
        if (!is_held) output_.append(piece);
        reply += piece.substr(0, kFollowedMax - before);
        if (is_held && reply.size() == kFollowedMax) {
            tunnel_->is_held = tunnel_->is_error = false;  // too long for a reply to what we sent
            output_.append(reply);
            output_.append(piece.substr(kFollowedMax - before));
        }
        if (result == ScanResult::Incomplete) break;
        if (tunnel_->is_held && is_reply_to_reset_ping(reply)) return true;
        if (tunnel_->is_held || tunnel_->is_error) output_.append(in_words_of_refusal(reply));
        tunnel_->is_held = tunnel_->is_resetting && reply == kReset;
        reply.clear();
    }
    output_.append(bytes);
    return false;
}

void Session::leave_tunnel() {
    if (tunnel_->is_monitor && context_.cache != nullptr) context_.cache->remove_monitor();
    tunnel_.reset();
    --context_.metrics.upstream_tunnels;
    lease_dirty_ = true;
    end_lease();
}

// The client sends no more: so does the tunnel, and the server ends it, as it ends a client's own
// connection.
void Session::finish_tunnel() {
    if (tunnel_->is_finishing) return;
    tunnel_->is_finishing = true;
    lease_->finish_sending();
}

// A client that does not take what comes is the server's to judge, by its own limits. While memory
// is short nothing more is read for it.
void Session::update_tunnel_reading() {
    const uint64_t high_water = terms_.limits.output_per_client_high_water;
    const bool is_full = unsent() >= high_water;
    const bool is_short = (paused_ & kMemory) != 0;
    if (!tunnel_->is_paused && (is_full || is_short)) {
        tunnel_->is_paused = true;
        if (is_full) ++context_.metrics.clients_paused_output_total;
        lease_->pause_reading();
    } else if (tunnel_->is_paused && !is_short && unsent() <= high_water / 2) {
        tunnel_->is_paused = false;
        lease_->resume_reading();
    }
}

}  // namespace nearkey
