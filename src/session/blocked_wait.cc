#include "nearkey/session/blocked_wait.h"

#include <utility>

namespace nearkey {

namespace {
// CLIENT UNBLOCK ... ERROR has other words.
constexpr std::string_view kUnblocked = "-UNBLOCKED force unblock";
constexpr std::string_view kRedirect = "-REDIRECT ";
constexpr std::string_view kReadonly = "-READONLY ";
constexpr size_t kWordsMax = 512;
// 20 ms after the second time, twice as long after each: 1.3 s in all.
constexpr uint32_t kRepeatsMax = 7;
constexpr uint64_t kPauseMs = 10;
constexpr uint64_t kSettledMs = 1000;
}  // namespace

BlockedWait::BlockedWait(Desk& desk, Lease& lease, const Transaction& transaction)
    : desk_(desk),
      lease_(lease),
      transaction_(transaction),
      wait_(desk.context.loop, [this] { go_on(); }) {
}

bool BlockedWait::keep(const Call& call) {
    return command_.keep(call.spec()->name, call.command, desk_.context.loop.now_ms());
}

void BlockedWait::send(const Call& call) {
    counts_ = &desk_.tally.row(call.spec());
    desk_.count_forwarded(call.spec());
    desk_.client.has_written = true;
    const uint32_t ticket = desk_.replies.open(1);
    desk_.ledger.begin(call.plan, call.command, ticket, lease_.way());
    is_open_ = true;
    is_moved_ = is_passing_ = false;
    wait_.restart();
    repeats_ = 0;
    sent_ms_ = desk_.context.loop.now_ms();
    next_ = Cluster::kNobody;
    is_asking_ = false;
    words_.clear();
    lease_->send({command_.bytes(), this, ticket, RequestKind::Blocking, 1, 0,
                  desk_.timing(call, RequestKind::Blocking)});
}

// True if nothing of its reply has come, and nothing else is owed.
bool BlockedWait::may_go_on() const {
    return is_open_ && desk_.owed() == 1 && desk_.output.reply_size() == 0 && !desk_.is_cut() &&
           !transaction_.is_open();
}

void BlockedWait::on_failover() {
    if (!may_go_on()) return;
    leave_lease();
    send_again();
}

// A server says that it is no primary any more. False: its words are the answer.
bool BlockedWait::repeat() {
    // Behind a long wait it is not the same move any more.
    if (desk_.context.loop.now_ms() > sent_ms_ + kSettledMs) repeats_ = 0;
    if (desk_.has_ended() || !may_go_on() || repeats_ == kRepeatsMax) return false;
    learn();
    leave_lease();
    desk_.pauses.pause(PauseReason::kLease, nullptr);
    const uint32_t repeats = repeats_++;
    wait_.pause(repeats == 0 ? 0 : kPauseMs << repeats);
    return true;
}

// A blocking command can't say a node's words, as a script can: they are believed.
void BlockedWait::learn() {
    next_ = Cluster::kNobody;
    Cluster* const cluster = desk_.context.cluster;
    if (cluster == nullptr) return;
    const auto redirect = read_redirect(words_);
    if (!redirect || !lease_) return cluster->doubt();
    next_ = cluster->follow(*lease_.connection(), *redirect,
                            cluster->slot_of_command(command_.bytes()));
    is_asking_ = redirect->kind == Redirect::Kind::Ask;
}

void BlockedWait::leave_lease() {
    words_.clear();
    // The server's word may be followed by another one.
    lease_.spoil();
    lease_.end();
    lease_.set_blocked(true);
    if (!std::exchange(is_moved_, true)) ++desk_.context.metrics.clients_moved_blocked_total;
}

void BlockedWait::send_again() {
    if (Cluster* const cluster = desk_.context.cluster) {
        Node* const named = cluster->find(next_);
        if (named == nullptr) is_asking_ = false;
        lease_.turn_to(named == nullptr ? cluster->node_for(command_.bytes()) : *named);
    }
    const bool is_there = lease_.take_one(true);
    wait_.wait_for_lease(!is_there);
    if (!is_there) return;
    lease_.set_blocked(true);
    desk_.pauses.unpause(PauseReason::kLease);
    sent_ms_ = desk_.context.loop.now_ms();
    if (std::exchange(is_asking_, false)) {
        lease_->send({Cluster::kAsking, &desk_.context.node.discard(), 0, RequestKind::Write});
    }
    lease_->send({command_.bytes_from(desk_.context.loop.now_ms()), this, desk_.replies.first(),
                  RequestKind::Blocking});
}

void BlockedWait::go_on() {
    if (desk_.is_over()) return;
    if (wait_.take_refusal()) {
        on_request_failed(desk_.replies.first(), PrimaryWait::kNoLease);
    } else {
        send_again();
    }
}

void BlockedWait::finish() {
    is_open_ = is_passing_ = false;
    words_.clear();
    command_.forget();
}

// --- its replies ---

bool BlockedWait::may_be_demotion(std::string_view words) const {
    if (desk_.context.cluster != nullptr && may_be_elsewhere(words)) return true;
    return may_become(words, kUnblocked) || may_become(words, kRedirect) ||
           (repeats_ > 0 && may_become(words, kReadonly));
}

void BlockedWait::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    const bool is_error = !words_.empty() || bytes.starts_with('-');
    if (is_error && !is_passing_ && words_.size() + bytes.size() <= kWordsMax) {
        words_ += bytes;
        if (may_be_demotion(words_)) return;
        bytes = {};
    }
    if (is_error && !is_passing_) counts_->count_error(words_.empty() ? bytes : words_);
    is_passing_ = true;
    if (!words_.empty()) desk_.receiver().on_reply_bytes(ticket, std::exchange(words_, {}));
    if (!bytes.empty()) desk_.receiver().on_reply_bytes(ticket, bytes);
}

void BlockedWait::on_reply_end(uint32_t ticket) {
    if (!words_.empty()) {
        if (repeat()) return;
        counts_->count_error(words_);
        desk_.receiver().on_reply_bytes(ticket, words_);
    }
    finish();
    desk_.receiver().on_reply_end(ticket);
}

bool BlockedWait::on_reply_void(uint32_t ticket) {
    return desk_.receiver().on_reply_void(ticket);
}

// A client that has gone waits for no other primary.
void BlockedWait::on_request_failed(uint32_t ticket, std::string_view error) {
    const bool is_away = error.starts_with("UPSTREAMDOWN") || error.starts_with("UPSTREAMLOST");
    const bool is_over = command_.is_time_over(desk_.context.loop.now_ms());
    const bool is_gone = desk_.has_ended() || desk_.is_input_over();
    if (is_away && !is_over && !is_gone && may_go_on() &&
        wait_.pause_for_primary(desk_.context.node)) {
        leave_lease();
        desk_.pauses.pause(PauseReason::kLease, nullptr);
        return;
    }
    counts_->count_error(error);
    finish();
    desk_.receiver().on_request_failed(ticket, error);
}

}  // namespace nearkey
