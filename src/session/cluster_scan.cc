#include "nearkey/session/cluster_scan.h"

#include "nearkey/resp/slot.h"
#include "nearkey/session/shared_route.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kWaitMs = 10;

// FNV-1a: another nearkey, and another event loop, has the same for the same node.
uint16_t tag_of(const Node& node) {
    uint32_t hash = 0x811c9dc5;
    for (const char c : to_text(node.target().url.endpoint()))
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
    return static_cast<uint16_t>(1 + hash % (ScanWalk::kTags - 1));
}
// The last slot of those that its owner has in one row.
uint16_t last_of_row(Cluster& cluster, uint16_t slot) {
    const Node& owner = cluster.owner(slot);
    while (slot + 1 < kSlots && &cluster.owner(static_cast<uint16_t>(slot + 1)) == &owner)
        ++slot;
    return slot;
}
}  // namespace

ClusterScan::ClusterScan(Desk& desk, SharedRoute& shared)
    : desk_(desk), shared_(shared), timer_(desk.context.loop, [this] { settle(State::Ready); }) {
}

std::optional<Executed> ClusterScan::forward(const Call& call) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (state_ == State::Idle) {
        if (!walk_.begin(call.command)) return std::nullopt;
        state_ = State::Ready;
        begun_ms_ = desk_.context.loop.now_ms();
        target_ = nullptr;
    }
    return go_on(call);
}

Executed ClusterScan::go_on(const Call& call) {
    if (state_ == State::Answered) {
        if (const auto executed = take(call)) return *executed;
    }
    if (state_ == State::Ready) return ask(call);
    desk_.pauses.pause(PauseReason::kLease, nullptr);
    return Executed::NotYet;
}

Executed ClusterScan::ask(const Call& call) {
    Cluster& cluster = *desk_.context.cluster;
    Node& node = target_ == nullptr ? cluster.owner(walk_.slot()) : *target_;
    target_ = nullptr;
    if (const auto executed = shared_.pin_to(node, call.spec())) {
        if (*executed == Executed::Yes) state_ = State::Idle;
        walk_.drop_target();
        return *executed;
    }
    std::string& bytes = desk_.context.encoded;
    bytes.clear();
    replies_.clear();
    bytes_ = 0;
    failure_.clear();
    state_ = State::Asking;
    expected_ = walk_.ask({tag_of(node), last_of_row(cluster, walk_.slot())}, bytes);
    asked_ = shared_.connection();
    asked_->send({bytes, this, 0, RequestKind::Write, expected_});
    if (state_ != State::Answered) desk_.pauses.pause(PauseReason::kLease, nullptr);
    return state_ == State::Answered ? go_on(call) : Executed::NotYet;
}

// Nothing: it goes on.
std::optional<Executed> ClusterScan::take(const Call& call) {
    state_ = State::Ready;
    if (!failure_.empty()) return fail(call, failure_);
    const ScanWalk::Step step = walk_.take(replies_);
    replies_.clear();
    switch (step) {
        case ScanWalk::Step::Done:
            return answer(call);
        case ScanWalk::Step::Again:
            return std::nullopt;
        case ScanWalk::Step::Later:
            return wait();
        case ScanWalk::Step::Moved:
        case ScanWalk::Step::Target:
            break;
    }
    ++desk_.context.metrics.cluster_scan_retries_total;
    Cluster& cluster = *desk_.context.cluster;
    Node* const node = cluster.find(cluster.follow(*asked_, walk_.redirect(), -1));
    const uint64_t limit_ms = desk_.context.node.options().queue_timeout_ms;
    if (begun_ms_ + limit_ms < desk_.context.loop.now_ms() && step == ScanWalk::Step::Moved) {
        return fail(call, "TRYAGAIN the slots that are scanned are moving");
    }
    if (step == ScanWalk::Step::Moved) {
        if (node == nullptr) return wait();
        return std::nullopt;
    }
    bool is_asked = false;
    // A node that is not known has no tag: the slot is read anew.
    const auto next = walk_.note_target(node == nullptr ? uint16_t{0} : tag_of(*node), is_asked);
    if (next == ScanWalk::Step::Done) return answer(call);
    target_ = is_asked ? node : nullptr;
    return std::nullopt;
}

Executed ClusterScan::wait() {
    state_ = State::Waiting;
    timer_.start_once(kWaitMs);
    desk_.pauses.pause(PauseReason::kLease, nullptr);
    return Executed::NotYet;
}

void ClusterScan::forget_waiting() {
    if (state_ == State::Idle) return;
    timer_.stop();
    if (state_ == State::Asking) forget(*asked_);
    state_ = State::Idle;
}

void ClusterScan::settle(State state) {
    state_ = state;
    desk_.pauses.unpause(PauseReason::kLease);
}

Executed ClusterScan::answer(const Call& call) {
    state_ = State::Idle;
    // It shows keys that the near cache may not know of yet.
    desk_.note_shown_reply(call, {desk_.context.node, *asked_, false});
    const std::string reply = walk_.reply();
    if (reply.starts_with('-')) desk_.tally.count_error(call.spec(), reply);
    desk_.answer_as(call.spec(), RequestOutcome::Forwarded, reply);
    return Executed::Yes;
}

Executed ClusterScan::fail(const Call& call, std::string_view error) {
    state_ = State::Idle;
    desk_.answer_error(call.spec(), error);
    return Executed::Yes;
}

// --- replies ---

void ClusterScan::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    if (replies_.size() <= ticket) replies_.resize(ticket + size_t{1});
    bytes_ += bytes.size();
    if (bytes_ > desk_.terms.limits.output_per_client_max / 2) {
        failure_ =
            "ERR the page is larger than limits.output_per_client_max allows; COUNT is too "
            "large";
        replies_.assign(ticket + size_t{1}, {});
        return;
    }
    replies_[ticket] += bytes;
}

void ClusterScan::on_reply_end(uint32_t ticket) {
    if (ticket + 1 == expected_) settle(State::Answered);
}

// Never retried by the connection: they travel as one.
bool ClusterScan::on_reply_void(uint32_t) {
    return false;
}

void ClusterScan::on_request_failed(uint32_t ticket, std::string_view error) {
    failure_ = error;
    if (ticket + 1 == expected_) settle(State::Answered);
}

}  // namespace nearkey
