#include "nearkey/upstream/sent_on.h"

#include <algorithm>
#include <utility>

namespace nearkey {

void SentOn::take(UnsentRequest& request, int slot) {
    over_.clear();
    PendingRequest& entry = request.request;
    if (is_hop(entry.receiver)) return;
    Hop& hop = hops_[entry.receiver].emplace_back(*this, entry.receiver, entry.ticket, slot);
    known_.insert(&hop);
    entry.receiver = &hop;
}

bool SentOn::is_hop(const ReplyReceiver* receiver) const {
    return known_.contains(receiver);
}

// True if one that was sent on before it may still come to that node behind it.
bool SentOn::must_wait(const Hops& hops, const Hop& hop, uint16_t node) {
    for (const Hop& before : hops) {
        if (&before == &hop) return false;
        const bool is_there = before.node == node && !before.is_held;
        if (before.slot == hop.slot && !is_there) return true;
    }
    return false;
}

void SentOn::send(UnsentRequest request, uint16_t node, bool is_asking) {
    Hop& hop = hop_of(request);
    const ReplyReceiver* const key = hop.key;
    hop.node = node;
    hop.is_asking = is_asking;
    hop.is_held = must_wait(hops_[key], hop, node);
    if (hop.is_held) {
        hop.request = std::move(request);
        return;
    }
    send_(node, request, is_asking);
    send_held(key);
}

void SentOn::send_held(const ReplyReceiver* key) {
    // One that fails at once ends, and may let go others: the list is another then.
    while (true) {
        const auto found = hops_.find(key);
        if (found == hops_.end()) return;
        Hops& hops = found->second;
        const auto next = std::find_if(hops.begin(), hops.end(), [&hops](const Hop& hop) {
            return hop.is_held && !must_wait(hops, hop, hop.node);
        });
        if (next == hops.end()) return;
        next->is_held = false;
        const UnsentRequest request = std::exchange(next->request, {});
        send_(next->node, request, next->is_asking);
    }
}

bool SentOn::is_of(const UnsentRequest& request, const ReplyReceiver& receiver) {
    return hop_of(request).key == &receiver;
}

void SentOn::forget(const ReplyReceiver& receiver) {
    const auto found = hops_.find(&receiver);
    if (found == hops_.end()) return;
    for (auto hop = found->second.begin(); hop != found->second.end();) {
        Hop& each = *hop++;
        each.receiver = nullptr;
        // Nobody has it: its reply will not end it.
        if (each.is_held || each.node == kNowhere) end(each);
    }
}

// It is destroyed later: this may be its own call.
void SentOn::end(Hop& hop) {
    const ReplyReceiver* const key = hop.key;
    Hops& hops = hops_[key];
    const auto place =
        std::find_if(hops.begin(), hops.end(), [&hop](const Hop& each) { return &each == &hop; });
    known_.erase(&hop);
    over_.splice(over_.end(), hops, place);
    if (hops.empty()) {
        hops_.erase(key);
    } else {
        send_held(key);
    }
}

// --- the place of the receiver ---

void SentOn::Hop::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (receiver != nullptr) receiver->on_reply_bytes(ticket, bytes);
}

void SentOn::Hop::on_reply_end(uint32_t) {
    if (receiver != nullptr) receiver->on_reply_end(ticket);
    all.end(*this);
}

bool SentOn::Hop::on_reply_void(uint32_t) {
    if (receiver != nullptr && receiver->on_reply_void(ticket)) return true;
    all.end(*this);
    return false;
}

void SentOn::Hop::on_request_failed(uint32_t, std::string_view error) {
    if (receiver != nullptr) receiver->on_request_failed(ticket, error);
    all.end(*this);
}

bool SentOn::Hop::on_request_delayed(uint32_t) {
    return receiver != nullptr && receiver->on_request_delayed(ticket);
}

void SentOn::Hop::on_slow_request(uint32_t, const RequestTiming& timing, SlowEnd end) {
    if (receiver != nullptr) receiver->on_slow_request(ticket, timing, end);
}

}  // namespace nearkey
