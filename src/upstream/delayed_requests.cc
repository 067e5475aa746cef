#include "nearkey/upstream/delayed_requests.h"

#include <algorithm>

namespace nearkey {

void DelayedRequests::push(UnsentRequest request, uint64_t wait_ms) {
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
        on_due_(std::move(request));
    }
    if (!waiting_.empty() && !timer_.is_active()) timer_.start_once(kTickMs);
}

}  // namespace nearkey
