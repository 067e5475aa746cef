#include "nearkey/upstream/in_flight.h"

#include "nearkey/base/probes.h"
#include "nearkey/upstream/error_place.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

namespace nearkey {

namespace {
constexpr uint32_t kHeadWaitsUs = 50'000;
constexpr uint64_t kTellAgainMs = 100;
constexpr size_t kSparseMin = size_t{16} << 10;

void trace_reply(const PendingRequest& head, size_t bytes, uint32_t now_us) {
    const CommandCount* const command = head.timing.command;
    probes::upstream_reply({head.receiver, head.ticket},
                           command == nullptr ? "" : command->name().c_str(), bytes,
                           now_us - head.timing.sent_us);
}
}  // namespace

size_t InFlight::count_tombstones() const {
    size_t tombstones = 0;
    for (size_t i = 0; i < requests_.size(); ++i)
        tombstones += requests_[i].receiver == nullptr ? 1 : 0;
    return tombstones;
}

// REQUIRES: it has a receiver, its reply is complete, and it is counted.
inline void InFlight::note_latency(const PendingRequest& request) {
    context_.latency.note_reply(request.timing);
    if (!context_.latency.is_slow(request.timing)) return;
    request.receiver->on_slow_request(request.ticket, request.timing,
                                      ReplyReceiver::SlowEnd::Reply);
}

inline void InFlight::take_head(const PendingRequest& head) {
    if (head.receiver == nullptr) --context_.metrics.tombstones;
    --context_.metrics.in_flight;
    if (expired_ > 0) --expired_;
    if (head.retained > 0) {
        retained_.consume(head.retained);
        if (counted_retained_ > 0 && retained_.empty()) count_retained();
    }
    requests_.pop_front();
}

void InFlight::count_retained() {
    context_.metrics.upstream_retained_bytes -= counted_retained_;
    counted_retained_ = retained_.capacity();
    context_.metrics.upstream_retained_bytes += counted_retained_;
}

void InFlight::deliver(std::string_view bytes, bool is_end) {
    ReplyReceiver* receiver = requests_.front().receiver;
    const uint32_t ticket = requests_.front().ticket;
    if (receiver != nullptr) receiver->on_reply_bytes(ticket, bytes);
    if (requests_.empty()) return;  // its receiver has ended the connection
    if (!is_end) {
        reply_bytes_ += bytes.size();
        return;
    }
    if (probes::is_traced(nearkey_upstream_reply_semaphore)) [[unlikely]] {
        trace_reply(requests_.front(), reply_bytes_ + bytes.size(), context_.latency.turn_us());
    }
    reply_bytes_ = 0;
    head_waits_ = false;
    answered_us_ = context_.latency.turn_us();
    PendingRequest& head = requests_.front();
    receiver = head.receiver;  // it may have been forgotten meanwhile
    if (head.replies > 1) {
        --head.replies;
        ++head.ticket;
    } else {
        const bool is_counted = head.timing.series != RequestTiming::kUncounted;
        if (receiver != nullptr && is_counted) note_latency(head);
        take_head(head);
    }
    if (receiver != nullptr) receiver->on_reply_end(ticket);
}

void InFlight::refuse_head(std::string_view error) {
    const PendingRequest head = requests_.front();
    if (head.may_be_retried()) return;
    take_head(head);
    if (head.receiver != nullptr) head.fail(error, context_.latency);
}

UnsentRequest InFlight::copy_head() const {
    const PendingRequest& head = requests_[0];
    UnsentRequest copy{std::string(retained_.view().substr(0, head.retained)), head,
                       head.deadline_ms, true};
    copy.request.retained = 0;
    return copy;
}

UnsentRequest InFlight::take_redirected() {
    UnsentRequest taken = copy_head();
    take_head(PendingRequest{requests_.front()});
    head_waits_ = false;
    answered_us_ = context_.latency.turn_us();
    return taken;
}

void InFlight::forget(const ReplyReceiver& receiver) {
    for (size_t i = 0; i < requests_.size(); ++i) {
        if (requests_[i].receiver != &receiver) continue;
        requests_[i].receiver = nullptr;
        ++context_.metrics.tombstones;
    }
}

std::unordered_set<const ReplyReceiver*> InFlight::receivers() const {
    std::unordered_set<const ReplyReceiver*> receivers;
    for (size_t i = 0; i < requests_.size(); ++i)
        receivers.insert(requests_[i].receiver);
    return receivers;
}

std::deque<UnsentRequest> InFlight::end(bool is_left) {
    reply_bytes_ = 0;
    head_waits_ = false;
    expired_ = 0;
    Ring<PendingRequest> lost = std::exchange(requests_, {});
    const Buffer retained = std::exchange(retained_, {});
    count_retained();
    std::string_view bytes = retained.view();
    context_.metrics.in_flight -= lost.size();
    std::deque<UnsentRequest> again;
    for (; !lost.empty(); lost.pop_front()) {
        PendingRequest entry = lost.front();
        const std::string_view request = bytes.substr(0, entry.retained);
        bytes.remove_prefix(entry.retained);
        if (entry.receiver == nullptr) {
            --context_.metrics.tombstones;
        } else if (entry.may_be_retried() && (!entry.is_retry || is_left) &&
                   entry.retained <= context_.options.retry_bytes_max) {
            if (!entry.receiver->on_reply_void(entry.ticket)) continue;
            entry.retained = 0;
            entry.is_retry = true;
            ++context_.metrics.reads_retried_total;
            again.push_back({std::string(request), entry, entry.deadline_ms, true});
        } else {
            if (entry.kind != RequestKind::Own) ++context_.metrics.upstream_lost_total;
            entry.fail(with_place(kUpstreamLost, context_, request), context_.latency);
        }
    }
    return again;
}

// Requests of one connection have the same timeout, so deadlines stand in order; one that had
// waited before it was sent fails no earlier than what was sent before it.
void InFlight::expire(uint64_t now_ms) {
    size_t passed = 0;
    size_t offset = 0;  // of the bytes that are kept of the one behind these
    while (expired_ < requests_.size()) {
        PendingRequest& entry = requests_[expired_];
        if (entry.deadline_ms > now_ms) return;
        ++expired_;
        if (entry.deadline_ms == 0 || entry.receiver == nullptr) continue;
        const PendingRequest late = entry;
        entry.receiver = nullptr;
        ++context_.metrics.tombstones;
        ++context_.metrics.upstream_timeout_total;
        for (; passed + 1 < expired_; ++passed)
            offset += requests_[passed].retained;
        late.fail(with_place("UPSTREAMTIMEOUT Valkey did not answer in time; may have run",
                             context_, retained_.view().substr(offset, late.retained)),
                  context_.latency);
    }
}

bool InFlight::is_overdue(uint64_t now_ms) const {
    return has_tombstone() &&
           requests_[0].deadline_ms + context_.options.tombstone_timeout_ms < now_ms;
}

void InFlight::look_at_head(uint64_t now_ms) {
    const uint32_t now_us = context_.latency.turn_us();
    const bool waits = !requests_.empty() && reply_bytes_ == 0 &&
                       now_us - requests_[0].timing.sent_us > kHeadWaitsUs &&
                       now_us - answered_us_ > kHeadWaitsUs;
    if (waits && !head_waits_) {
        head_waits_since_ms_ = now_ms;
        head_waits_since_boot_ms_ = Loop::boot_ms();
    }
    head_waits_ = waits;
}

void InFlight::tell_held_up(uint64_t now_ms, uint64_t since_boot_ms) {
    if (!head_waits_ || since_boot_ms <= head_waits_since_boot_ms_) return;
    if (now_ms < told_held_up_ms_ + kTellAgainMs) return;
    told_held_up_ms_ = now_ms;
    // Each receiver's entries together, those that keep it here first.
    std::vector<std::tuple<ReplyReceiver*, bool, size_t>> owed;
    owed.reserve(requests_.size());
    for (size_t i = 0; i < requests_.size(); ++i) {
        const PendingRequest& entry = requests_[i];
        const bool may_pass = i > 0 && entry.may_be_retried() && !entry.is_retry;
        if (entry.receiver != nullptr) owed.emplace_back(entry.receiver, may_pass, i);
    }
    std::sort(owed.begin(), owed.end());
    // Receivers are told in the order of their requests, not of their addresses.
    std::vector<std::pair<size_t, ReplyReceiver*>> told;
    const ReplyReceiver* last = nullptr;
    for (const auto& [receiver, may_pass, place] : owed) {
        if (std::exchange(last, receiver) != receiver && may_pass)
            told.emplace_back(place, receiver);
    }
    std::sort(told.begin(), told.end());
    for (const auto& [place, receiver] : told)
        receiver->on_held_up();
}

bool InFlight::owes_reads_alone() const {
    for (size_t i = 0; i < requests_.size(); ++i) {
        const RequestKind kind = requests_[i].kind;
        if (kind != RequestKind::Read && kind != RequestKind::Own) return false;
    }
    return true;
}

void InFlight::take_reads(const ReplyReceiver& receiver, const Visit& visit) {
    std::string_view bytes = retained_.view();
    for (size_t i = 0; i < requests_.size(); ++i) {
        const PendingRequest& entry = requests_[i];
        const std::string_view request = bytes.substr(0, entry.retained);
        bytes.remove_prefix(entry.retained);
        if (entry.receiver != &receiver) continue;
        PendingRequest again = entry;
        again.retained = 0;
        again.is_retry = true;
        ++context_.metrics.reads_retried_total;
        visit(again, request);
    }
    forget(receiver);
}

void InFlight::shrink_if_sparse() {
    if (requests_.capacity() > kSparseMin && requests_.size() < requests_.capacity() / 4) {
        requests_.shrink();
    }
}

}  // namespace nearkey
