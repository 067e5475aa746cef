// Tunnels: the session's commands change the connection itself, so it has one to itself, with
// exactly its state, and what the server says there is passed on as it comes.
#include "nearkey/session/session.h"

#include "nearkey/base/ignoring_case.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// What is sent behind RESET, and the last that the server says then: neither is ever refused or
// silenced. (The reply to the client's own RESET is, behind CLIENT REPLY SKIP.)
constexpr std::string_view kEnd = "*1\r\n$5\r\nRESET\r\n*1\r\n$4\r\nQUIT\r\n";
constexpr std::string_view kLastWords = "+RESET\r\n+OK\r\n";
// The error to a stand-in (session_access.cc) is shorter.
constexpr size_t kErrorMax = 256;

// Of AUTH [user] password and HELLO version ... AUTH user password ...
std::optional<UpstreamCredentials> find_credentials(const CommandView& command) {
    if (equals_ignoring_case(command[0], "AUTH")) {
        if (command.size() == 2) return UpstreamCredentials{"default", command[1]};
        return UpstreamCredentials{command[1], command[2]};
    }
    if (!equals_ignoring_case(command[0], "HELLO")) return std::nullopt;
    for (size_t i = 2; i + 2 < command.size(); ++i) {
        if (equals_ignoring_case(command[i], "AUTH")) {
            return UpstreamCredentials{command[i + 1], command[i + 2]};
        }
        ++i;  // what SETNAME says
    }
    return std::nullopt;
}

// How many bytes at the end of `bytes` may be the beginning of kLastWords.
size_t last_words_at_end(std::string_view bytes) {
    for (size_t size = std::min(bytes.size(), kLastWords.size()); size > 0; --size) {
        if (bytes.ends_with(kLastWords.substr(0, size))) return size;
    }
    return 0;
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
    const bool is_unauthorized = preparation_failed_ && lease_->is_unauthorized() && !lease_dirty_;
    if (preparation_ == Preparation::Done && is_unauthorized) {
        if (const auto executed = take_lease_as_client(command)) return *executed;
    }
    const WhenRefused when = spec->needs_no_auth ? WhenRefused::WaitOrTell : WhenRefused::Fail;
    if (const auto executed = prove_lease(is_proven, when)) return *executed;
    leave_connection();
    tunnel_ = std::make_unique<Tunnel>();
    ++context_.metrics.upstream_tunnels;
    leave_transaction();  // The server knows.
    lease_->begin_tunnel();
    return pass_through(spec, command);
}

// Valkey refuses nearkey's own password, and the client is just saying one. A connection is set up
// with that; if it is refused as well, its words are those that the client would have got. Nothing:
// the command names no credentials, or a connection is being set up.
std::optional<Session::Executed> Session::take_lease_as_client(const CommandView& command) {
    const auto credentials = find_credentials(command);
    if (!credentials) return std::nullopt;
    end_lease();
    preparation_ = Preparation::None;
    preparation_error_.clear();
    lease_ = context_.pool.lease({protocol_, database_, identity_, &*credentials}, *this);
    if (lease_ == nullptr) {
        pause(kLease, nullptr);
        return Executed::NotYet;
    }
    lease_->set_owner(this);
    lease_dirty_ = true;
    introduce();
    return std::nullopt;
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
    if (spec->special == Special::Sync) tunnel_->is_replica = true;
    if (spec->special == Special::Monitor && !std::exchange(tunnel_->is_monitor, true)) {
        if (context_.cache != nullptr) context_.cache->add_monitor();
    }
    if (spec->special == Special::Reset && !tunnel_->is_replica) {
        tunnel_->is_resetting = true;
        lease_->send_through(kEnd);
        lease_->expect_end();
        pause(kLease, nullptr);
    }
    return Executed::Yes;
}

// In a tunnel the server says what is wrong with the input, at its place behind what it owes, and
// ends the tunnel. Until then the client's own end is waited for: the server ends a blocked client
// that leaves.
void Session::refuse_input() {
    ++context_.metrics.protocol_errors_total;
    warn("protocol_error", parser_.error());
    if (tunnel_ == nullptr) {
        spec_ = nullptr;  // It was the last command's, whose table may be gone.
        answer_error(parser_.error());
    } else {
        lease_->send_through(parser_.counterpart());
        tunnel_->is_refused = true;
    }
    stop_input();
}

void Session::on_tunnel_bytes(std::string_view bytes) {
    if (ended_) return;
    if (tunnel_->is_resetting) {
        std::string& held = tunnel_->last_words;
        std::string both;
        if (!held.empty()) {
            both = std::exchange(held, {}).append(bytes);
            bytes = both;
        }
        const size_t size = last_words_at_end(bytes);
        held = bytes.substr(bytes.size() - size);
        bytes.remove_suffix(size);
        follow_replies(bytes);
    } else {
        follow_replies(bytes);
    }
    if (output_lost_) output_.truncate(0);
    committed_ = output_.size();
    flush_hook_.defer();
    update_tunnel_reading();
    account();
}

// The server has ended the tunnel. It was asked to behind RESET: whatever it owed before, in
// whatever form, or nothing, has been passed on by now.
void Session::on_tunnel_ended() {
    const bool is_reset = tunnel_->is_resetting && tunnel_->last_words == kLastWords;
    const bool is_stuck = tunnel_->is_paused;
    if (!output_lost_ && !is_reset) output_.append(tunnel_->last_words);
    committed_ = output_.size();
    leave_tunnel();
    if (is_reset) {
        change_way();
        forget_state();
        unpause(kLease | kServer);
        return;
    }
    stop_input();
    paused_ = 0;
    // The server has given up a client that takes nothing, and so do we.
    if (is_stuck) end();
}

// Passes the replies on, with the words of a refusal where one is to a stand-in.
void Session::follow_replies(std::string_view bytes) {
    while (!tunnel_->is_replica && !bytes.empty())
        bytes.remove_prefix(follow_reply(bytes));
    output_.append(bytes);
}

// How many of `bytes` belong to the reply that begins or goes on there.
size_t Session::follow_reply(std::string_view bytes) {
    if (tunnel_->is_unread) {
        const size_t line_end = bytes.find('\n');
        tunnel_->is_unread = line_end == std::string_view::npos;
        const std::string_view line = bytes.substr(0, tunnel_->is_unread ? line_end : line_end + 1);
        output_.append(line);
        return line.size();
    }
    std::string& error = tunnel_->error;
    size_t taken = 0;
    const ScanResult result = tunnel_->scanner.scan(bytes, taken);
    if (result == ScanResult::Malformed) {
        // A script's error may have raw line ends: a reply begins behind one of the next.
        tunnel_->scanner = ReplyScanner();
        tunnel_->is_unread = true;
        tunnel_->is_inside = false;
        output_.append(std::exchange(error, {}));
        return 0;
    }
    const std::string_view piece = bytes.substr(0, taken);
    const bool begins_error = !tunnel_->is_inside && piece.starts_with('-');
    const bool is_held = !error.empty() || (tunnel_->has_refused && begins_error);
    tunnel_->is_inside = result == ScanResult::Incomplete;
    if (!is_held) {
        output_.append(piece);
        return taken;
    }
    error += piece;
    if (result == ScanResult::Complete) {
        output_.append(in_words_of_refusal(std::exchange(error, {})));
    } else if (error.size() > kErrorMax) {
        output_.append(std::exchange(error, {}));
    }
    return taken;
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
    if (tunnel_->is_finishing || tunnel_->is_refused) return;
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
