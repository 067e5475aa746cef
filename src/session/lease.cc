#include "nearkey/session/lease.h"

#include "nearkey/upstream/own_question.h"

#include <utility>

namespace nearkey {

namespace {

// A connection that was told longer names is not kept for the next session.
constexpr size_t kIdleIdentityMax = size_t{4} << 10;
constexpr size_t kOwnReplyMax = size_t{16} << 10;

}  // namespace

void introduce(Connection& connection, const ClientIdentity& client, Node& node,
               std::string& scratch) {
    const ClientIdentity& known = connection.use().identity();
    scratch.clear();
    uint32_t commands = 0;
    if (known.name != client.name) {
        append_command(scratch, {"CLIENT", "SETNAME", client.name});
        ++commands;
    }
    if (known.library != client.library) {
        append_command(scratch, {"CLIENT", "SETINFO", "LIB-NAME", client.library});
        ++commands;
    }
    if (known.library_version != client.library_version) {
        append_command(scratch, {"CLIENT", "SETINFO", "LIB-VER", client.library_version});
        ++commands;
    }
    if (commands == 0) return;
    connection.use().set_identity(client);
    connection.send({scratch, &node.discard(), 0, RequestKind::Write, commands});
}

std::optional<Executed> Lease::take(const Call& call) {
    if (desk_.context.cluster == nullptr) return take_at(*node_, call);
    // Whether the command is of the transaction is not known before the replies have told.
    const bool is_at_server = transaction_.is_at_server();
    const bool is_unsure = is_at_server && !transaction_.may_be_in_multi();
    if (is_unsure && desk_.owed() > 0) return desk_.wait_until_idle();
    // What was asked about the command holds for this connection alone.
    const bool is_asked = preparation_.state != Preparation::State::None && connection_ != nullptr;
    Node* node = node_;
    if (!is_at_server && !is_asked) {
        if (const auto executed = desk_.place(call, node)) return *executed;
    }
    return take_at(*node, call);
}

// It turns to the node only to take one there: a command that is answered here, or that waits for
// something else, leaves no name of a node that may go.
std::optional<Executed> Lease::take_at(Node& node, const Call& call) {
    if (connection_ != nullptr && node_ != &node) {
        // It is kept for another command, of that node.
        if (desk_.owed() > 0) return desk_.wait_until_idle();
        end();
    }
    if (connection_ != nullptr) {
        if (connection_->is_retired() && desk_.owed() > 0 && !transaction_.is_open()) {
            return desk_.wait_until_idle();
        }
        if (!transaction_.may_be_in_multi() &&
            connection_->use().identity() != desk_.client.identity) {
            introduce();
        }
        return std::nullopt;
    }
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (desk_.client.is_database_unsure || std::exchange(was_refused_, false)) {
        desk_.answer_error(call.spec(), desk_.client.is_database_unsure
                                            ? kDatabaseUnsure
                                            : "ERR nearkey has no dedicated connection left "
                                              "(upstream.dedicated_max)");
        return Executed::Yes;
    }
    turn_to(node);
    if (!take_one(false)) return Executed::NotYet;
    return std::nullopt;
}

// A place in the queue of the same node is kept.
void Lease::turn_to(Node& node) {
    if (node_ == &node) return;
    stop_waiting();
    node_ = &node;
}

void Lease::stop_waiting() {
    node_->leases().stop_waiting(*this);
    if (connection_ == nullptr) node_ = &desk_.context.node;
}

bool Lease::take_as(const UpstreamCredentials& credentials) {
    const ClientState& client = desk_.client;
    if (!take_new({client.protocol, client.database, client.identity, &credentials})) return false;
    is_dirty_ = true;
    return true;
}

bool Lease::take_one(bool is_fresh) {
    return take_new({.protocol = desk_.client.protocol,
                     .database = desk_.client.database,
                     .identity = desk_.client.identity,
                     .credentials = nullptr,
                     .is_fresh = is_fresh});
}

bool Lease::take_new(const LeaseWish& wish) {
    connection_ = node_->leases().lease(wish, *this);
    if (connection_ == nullptr) {
        desk_.pauses.pause(PauseReason::kLease, nullptr);
        return false;
    }
    connection_->use().set_owner(&owner_);
    introduce();
    return true;
}

void Lease::settle_wait(bool is_refused) {
    // Its queue keeps the node no longer.
    if (is_refused) node_ = &desk_.context.node;
    if (events_.on_lease_settled(is_refused)) return;
    was_refused_ |= is_refused;
    desk_.pauses.unpause(PauseReason::kLease);
}

bool Lease::is_there_at_once() {
    // Whose slot the command is of is not known yet.
    if (desk_.context.cluster != nullptr) return false;
    if (connection_ != nullptr) return connection_->is_ready();
    const ClientState& client = desk_.client;
    return !client.is_database_unsure &&
           node_->leases().prefetch({client.protocol, client.database, client.identity});
}

void Lease::end() {
    if (connection_ == nullptr) return;
    using End = LeaseEnd;
    const bool is_clean = 2 * desk_.client.identity_bytes <= kIdleIdentityMax &&
                          (desk_.owed() == 0 || connection_->pipeline().is_idle()) &&
                          preparation_.state != Preparation::State::Pending && !is_unproven_ &&
                          !is_dirty_ && !transaction_.is_open();
    if (!is_clean) {
        connection_->forget(*this);
        events_.forget_replies(*connection_);
    }
    const End end = !is_clean ? End::Dirty : is_doubtful_ ? End::Doubtful : End::Clean;
    is_blocked_ = is_unproven_ = is_dirty_ = is_scripted_ = is_doubtful_ = false;
    node_->leases().give_back(*std::exchange(connection_, nullptr), end);
    node_ = &desk_.context.node;
}

void Lease::note_own_reply(bool is_error) {
    // An error may tell of the client's own words, whatever the command; in replies of scripts and
    // modules each text may. EXEC's reply has those of all queued commands.
    is_doubtful_ |= is_error || (is_scripted_ && connection_->has_read_text());
    if (std::exchange(is_unproven_, false)) is_dirty_ |= !is_error;
}

// --- questions of our own ---

void Lease::prepare(std::string_view bytes, WhenRefused when_refused) {
    connection_->use().set_when_refused(when_refused);
    ask(bytes, RequestKind::Write);
    is_asking_ = false;
}

// Nothing is told of an answer that comes meanwhile: who asks is not done yet.
void Lease::ask(std::string_view bytes, RequestKind kind) {
    is_asking_ = true;
    preparation_ = {};
    desk_.pauses.pause(PauseReason::kLease, nullptr);
    connection_->send({bytes, this, 0, kind});
    if (preparation_.state == Preparation::State::Done) {
        desk_.pauses.unpause(PauseReason::kLease);
    } else {
        preparation_.state = Preparation::State::Pending;
    }
}

void Lease::on_reply_bytes(uint32_t, std::string_view bytes) {
    std::string& error = preparation_.error;
    if (error.size() + bytes.size() <= kOwnReplyMax) error += bytes;
}

void Lease::on_reply_end(uint32_t) {
    std::string& error = preparation_.error;
    preparation_.reply = error;
    if (!error.starts_with('-')) error.clear();
    error.erase(0, 1);
    while (error.ends_with('\n') || error.ends_with('\r'))
        error.pop_back();
    preparation_.state = Preparation::State::Done;
    events_.on_prepared();
}

bool Lease::on_reply_void(uint32_t) {
    preparation_.error.clear();
    return true;
}

// Where the question was ours, the client's command has not been sent.
void Lease::on_request_failed(uint32_t, std::string_view error) {
    const bool is_at_once = preparation_.state == Preparation::State::None;
    const bool is_late = !is_asking_ && error.starts_with("UPSTREAMTIMEOUT");
    preparation_ = {
        Preparation::State::Done,
        std::string(is_late ? "UPSTREAMDOWN Valkey did not answer in time; not sent" : error),
        true};
    if (!is_at_once) events_.on_prepared();
}

void Lease::void_preparation() {
    if (preparation_.state != Preparation::State::Done || preparation_.has_failed) return;
    if (is_asking_) return;  // It is answered.
    preparation_.has_failed = true;
    preparation_.error = "UPSTREAMDOWN the connection to Valkey was lost; not sent";
}

void Lease::forget_waiting() {
    if (connection_ == nullptr) stop_waiting();
    if (desk_.owed() == 0) is_blocked_ = false;
    was_refused_ = false;
    using State = Preparation::State;
    const State state = std::exchange(preparation_, {}).state;
    if (state == State::None || connection_ == nullptr) return;
    if (state == State::Pending) connection_->forget(*this);
    // What was said may have left something behind. In a transaction that stays.
    if (transaction_.is_at_server()) return;
    is_dirty_ = true;
    if (desk_.owed() == 0) end();
}

// Any reply to our PING proves it too: the server answers the client's command itself. But a step
// before it may be missing that was refused because the server is busy.
std::optional<Executed> Lease::prove(const Call& call, bool is_proven, WhenRefused when_refused) {
    // The server would queue a question in MULTI, and EXEC answer it: there is none. Where commands
    // are held back, an empty one has its turn among them, and nothing of it is sent.
    const bool is_in_multi = transaction_.may_be_in_multi();
    const bool is_open = connection_->is_ready() && !connection_->pipeline().is_held_back();
    const bool may_go = is_in_multi ? is_open : is_proven;
    if (!may_go && preparation_.state == Preparation::State::None) {
        if (desk_.owed() > 0) return desk_.wait_until_idle();
        prepare(is_in_multi ? std::string_view() : kPing, when_refused);
        return Executed::NotYet;
    }
    const Preparation done = take_preparation();
    const bool is_busy = done.error.starts_with("BUSY") && !call.spec()->is_taken_busy;
    if (done.error.empty() || (!done.has_failed && !is_busy)) return std::nullopt;
    desk_.answer_error(call.spec(), done.error);
    if (desk_.owed() == 0 && !transaction_.is_open()) end();
    return Executed::Yes;
}

}  // namespace nearkey
