#include "nearkey/upstream/delayed_requests.h"

#include <algorithm>

namespace nearkey {

namespace {
constexpr uint8_t kDelaysMax = 15;  // PendingRequest counts no further
}  // namespace

std::optional<uint64_t> DelayedRequests::wait_of(const PendingRequest& request, uint64_t now_ms,
                                                 uint64_t patience_ms) {
    const uint64_t wait_ms = kTickMs << request.delays;
    const bool has_time = request.delays < kDelaysMax && wait_ms <= patience_ms &&
                          now_ms + wait_ms < request.deadline_ms;
    return has_time ? std::optional(wait_ms) : std::nullopt;
}

void DelayedRequests::push(UnsentRequest request, uint64_t wait_ms) {
    metrics_.upstream_retained_bytes += request.bytes.size();
    waiting_.push_back({std::move(request), loop_.now_ms() + wait_ms});
    if (!timer_.is_active()) timer_.start_once(kTickMs);
}

// One that is tried may be delayed again, or have others dropped.
void DelayedRequests::tick() {
    const uint64_t now_ms = loop_.now_ms();
    const auto is_due = [now_ms](const Waiting& each) { return each.due_ms <= now_ms; };
    while (true) {
        const auto due = std::find_if(waiting_.begin(), waiting_.end(), is_due);
        if (due == waiting_.end()) break;
        UnsentRequest request = std::move(due->request);
        waiting_.erase(due);
        metrics_.upstream_retained_bytes -= request.bytes.size();
        on_due_(std::move(request));
    }
    if (!waiting_.empty() && !timer_.is_active()) timer_.start_once(kTickMs);
}

}  // namespace nearkey
