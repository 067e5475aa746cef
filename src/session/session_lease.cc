// A session with a connection of its own, for the time of a command or of a transaction.
#include "nearkey/session/session.h"

#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

#include <initializer_list>
#include <utility>

namespace nearkey {

namespace {

void append_command(std::string& out, std::initializer_list<std::string_view> words) {
    append_array_header(out, words.size());
    for (const std::string_view word : words)
        append_bulk(out, word);
}

bool is_refused_for_now(std::string_view error) {
    return error.starts_with("BUSY ") || error.starts_with("LOADING ");
}

constexpr std::string_view kPing = "*1\r\n$4\r\nPING\r\n";
// With longer names a connection is not kept for the next session.
constexpr size_t kIdleIdentityMax = size_t{4} << 10;

}  // namespace

Session::Executed Session::forward_alone(const CommandView& command, RequestKind kind) {
    if (const auto executed = take_lease()) return *executed;
    // A client that has closed its sending half may be gone: it does not wait for ever.
    if (kind == RequestKind::Blocking && input_over_) kind = RequestKind::Write;
    lease_blocks_ |= kind == RequestKind::Blocking;
    // What stands behind a blocking command waits as long as that does.
    send(*lease_, command, lease_blocks_ ? RequestKind::Blocking : kind);
    return Executed::Yes;
}

// A script, or what a server compiles, may put line ends into a line of text, so that it reads as
// several replies. They must not meet the next client on this connection: on_reply_end().
Session::Executed Session::forward_script(const CommandView& command, RequestKind kind) {
    const Executed executed = forward_alone(command, kind);
    if (lease_ != nullptr) lease_scripted_ = true;
    return executed;
}

// A large command, or one behind a large reply, is to hold up nobody. It gets a connection of its
// own that is there at once; where none is, it goes as every other command does, and one is
// connected for the next.
Session::Executed Session::forward_apart(const CommandView& command, RequestKind kind) {
    if (!has_lease_at_once()) return forward(command, kind);
    if (const auto executed = take_lease()) return *executed;
    return command.raw().size() >= kLarge ? send_large(command)
                                          : forward_alone(command, RequestKind::Write);
}

bool Session::has_lease_at_once() {
    if (lease_ != nullptr) return lease_->is_ready();
    return !database_unsure_ && context_.pool.prefetch_lease({protocol_, database_, identity_});
}

// So that there is one for what comes next.
void Session::prefetch_lease() {
    static_cast<void>(has_lease_at_once());
}

// A large command leaves in the buffer in which it came, if it stands at the beginning of that.
// Where much more follows it, moving that would cost more than a copy of the command does.
Session::Executed Session::send_large(const CommandView& command) {
    const size_t size = command.raw().size();
    const bool is_first = input_.view().data() == command.raw().data();
    if (!is_first || !command.is_canonical() || input_.size() - size > size) {
        return forward_alone(command, RequestKind::Write);
    }
    ++commands_;
    ++context_.metrics.commands_forwarded_total;
    has_written_ = true;
    if (context_.cache != nullptr) note(*lease_, command, next_ticket_);
    // What follows moves out of the buffer before the connection gets it.
    Buffer rest;
    rest.append(input_.view().substr(size));
    Buffer bytes = std::exchange(input_, std::move(rest));
    bytes.truncate(size);
    input_given_ = true;
    const RequestKind kind = lease_blocks_ ? RequestKind::Blocking : RequestKind::Write;
    lease_->send_owned({{}, this, next_ticket_++, kind, 1, 0, timing(command, kind)},
                       std::move(bytes));
    return Executed::Yes;
}

// A command that may change its connection goes alone, and the connection is used again only if
// the command was refused.
Session::Executed Session::forward_unproven(const CommandView& command) {
    if (owed() > 0) return wait_until_idle();
    if (const auto executed = take_lease()) return *executed;
    lease_unproven_ = true;
    pause(kUntilIdle, nullptr);
    send(*lease_, command, RequestKind::Write);
    return Executed::Yes;
}

// WAIT counts the writes of its own connection (replication.c, woff), and this session's went over
// others. A command that is propagated moves the connection's offset past all of them.
Session::Executed Session::forward_wait(const CommandView& command) {
    if (owed() > 0) return wait_until_idle();
    if (const auto executed = take_lease()) return *executed;
    if (has_written_ && preparation_ == Preparation::None) {
        prepare(kMark, WhenRefused::Fail);
        return Executed::NotYet;
    }
    preparation_ = Preparation::None;
    if (!preparation_error_.empty()) {
        // With these words WAIT itself would be refused.
        const bool is_own = preparation_failed_ || is_refused_for_now(preparation_error_);
        answer_error(
            fmt::format("{}{}", std::exchange(preparation_error_, {}),
                        is_own ? "" : " (WAIT could not be made to count this session's writes)"));
        if (!is_in_transaction()) end_lease();
        return Executed::Yes;
    }
    return forward_alone(command, RequestKind::Blocking);
}

std::optional<Session::Executed> Session::take_lease() {
    if (lease_ != nullptr) {
        if (lease_->is_retired() && owed() > 0 && !is_in_transaction()) return wait_until_idle();
        if (!may_be_in_multi() && lease_->identity != identity_) introduce();
        return std::nullopt;
    }
    if (owed() > 0) return wait_until_idle();
    if (database_unsure_ || std::exchange(lease_refused_, false)) {
        answer_error(database_unsure_ ? kDatabaseUnsure
                                      : "ERR nearkey has no dedicated connection left "
                                        "(upstream.dedicated_max)");
        return Executed::Yes;
    }
    lease_ = context_.pool.lease({protocol_, database_, identity_}, *this);
    if (lease_ == nullptr) {
        pause(kLease, nullptr);
        return Executed::NotYet;
    }
    lease_->set_owner(this);
    introduce();
    return std::nullopt;
}

// Nothing: the lease works. What fails before is answered with an error, and nothing was sent.
// Whatever the server says to our PING proves it too: what it says to the client's command is the
// server's to say. But what was refused before it because the server is busy may be missing.
std::optional<Session::Executed> Session::prove_lease(bool is_proven, WhenRefused when_refused) {
    if (!is_proven && preparation_ == Preparation::None) {
        if (owed() > 0) return wait_until_idle();
        prepare(kPing, when_refused);
        return Executed::NotYet;
    }
    preparation_ = Preparation::None;
    const bool is_busy = preparation_error_.starts_with("BUSY") && !spec_->is_taken_busy;
    if (!preparation_failed_ && !is_busy) preparation_error_.clear();
    if (preparation_error_.empty()) return std::nullopt;
    answer_error(std::exchange(preparation_error_, {}));
    if (owed() == 0 && !is_in_transaction()) end_lease();
    return Executed::Yes;
}

void Session::on_lease_possible() {
    unpause(kLease);
}

void Session::on_lease_refused() {
    lease_refused_ = true;
    unpause(kLease);
}

// Tells the server who the client is, where the connection's last client was another.
void Session::introduce() {
    const ClientIdentity& known = lease_->identity;
    std::string& bytes = context_.encoded;
    bytes.clear();
    uint32_t commands = 0;
    if (known.name != identity_.name) {
        append_command(bytes, {"CLIENT", "SETNAME", identity_.name});
        ++commands;
    }
    if (known.library != identity_.library) {
        append_command(bytes, {"CLIENT", "SETINFO", "LIB-NAME", identity_.library});
        ++commands;
    }
    if (known.library_version != identity_.library_version) {
        append_command(bytes, {"CLIENT", "SETINFO", "LIB-VER", identity_.library_version});
        ++commands;
    }
    if (commands == 0) return;
    lease_->identity = identity_;
    count_identity();
    lease_->send({bytes, &context_.pool.discard(), 0, RequestKind::Write, commands});
}

// Asks something for ourselves before the client's command goes over the lease. Its ticket is none
// of those that are owed.
void Session::prepare(std::string_view bytes, WhenRefused when_refused) {
    preparation_ = Preparation::Pending;
    preparation_failed_ = false;
    pause(kLease, nullptr);
    lease_->when_refused = when_refused;
    lease_->send({bytes, this, first_ticket_ - 1, RequestKind::Write});
}

void Session::on_prepared() {
    if (!preparation_error_.starts_with('-')) preparation_error_.clear();
    preparation_error_.erase(0, 1);
    while (preparation_error_.ends_with('\n') || preparation_error_.ends_with('\r'))
        preparation_error_.pop_back();
    preparation_ = Preparation::Done;
    unpause(kLease);
}

// The lease was ready and is no more; what was in flight has been answered with an error.
void Session::on_connection_lost() {
    if (ended_) return;
    if (tunnel_ != nullptr) {
        on_tunnel_ended();
    } else if (is_in_transaction()) {
        lose_transaction();
    }
    if (preparation_ == Preparation::Done && !std::exchange(preparation_failed_, true)) {
        preparation_error_ = "UPSTREAMDOWN the connection to Valkey was lost; not sent";
    }
    if (lease_ != nullptr && owed() == 0 && preparation_ == Preparation::None) end_lease();
    flush_hook_.defer();
}

void Session::end_lease() {
    if (lease_ == nullptr) return;
    using LeaseEnd = ConnectionPool::LeaseEnd;
    const bool is_clean = held_by_.identity <= kIdleIdentityMax && owed() == 0 &&
                          preparation_ != Preparation::Pending && !lease_unproven_ &&
                          !lease_dirty_ && !is_in_transaction();
    if (!is_clean) lease_->forget(*this);
    const LeaseEnd end = !is_clean         ? LeaseEnd::Dirty
                         : lease_doubtful_ ? LeaseEnd::Doubtful
                                           : LeaseEnd::Clean;
    lease_blocks_ = lease_unproven_ = lease_dirty_ = lease_scripted_ = lease_doubtful_ = false;
    context_.pool.give_back(*std::exchange(lease_, nullptr), end);
    if (held_by_.identity > 0) count_identity();
}

}  // namespace nearkey
