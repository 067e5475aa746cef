#include "nearkey/upstream/sent_on.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace nearkey {

void SentOn::Line::take_out(const Hop& hop) {
    there -= is_at(hop, common) ? 1 : 0;
    held -= hop.state == State::Held ? 1 : 0;
}

void SentOn::Line::put(Hop& hop, State state, uint16_t node) {
    take_out(hop);
    hop.state = state;
    hop.node = node;
    if (there == 0 && state == State::UnderWay) {
        common = node;
        there = static_cast<size_t>(std::count_if(
            hops.begin(), hops.end(), [node](const Hop& each) { return is_at(each, node); }));
    } else {
        there += is_at(hop, common) ? 1 : 0;
    }
    held += state == State::Held ? 1 : 0;
}

// True if one that was sent on before it may still come to that node behind it.
bool SentOn::Line::must_wait(const Hop& hop, uint16_t node) const {
    const size_t others_there = there - (is_at(hop, common) ? 1 : 0);
    if (node == common && others_there == hops.size() - 1) return false;
    for (const Hop& before : hops) {
        if (&before == &hop) return false;
        if (!is_at(before, node)) return true;
    }
    return false;
}

void SentOn::take(UnsentRequest& request, int slot) {
    over_.clear();
    PendingRequest& entry = request.request;
    if (known_.contains(entry.receiver)) return;
    Line& line = lines_[entry.receiver][slot];
    Hop& hop = line.hops.emplace_back(*this, entry.receiver, entry.ticket, slot);
    known_.emplace(&hop, std::prev(line.hops.end()));
    entry.receiver = &hop;
}

void SentOn::send(UnsentRequest request, uint16_t node, bool is_asking) {
    Hop& hop = hop_of(request);
    const ReplyReceiver* const key = hop.key;
    const int slot = hop.slot;
    Line& line = line_of(hop);
    const bool is_held = line.must_wait(hop, node);
    line.put(hop, is_held ? State::Held : State::UnderWay, node);
    hop.is_asking = is_asking;
    if (is_held) {
        hop.request = std::move(request);
        metrics_.upstream_retained_bytes += hop.request.bytes.size();
        return;
    }
    send_(node, request, is_asking);
    send_held(key, slot);
}

void SentOn::delay(const UnsentRequest& request) {
    Hop& hop = hop_of(request);
    line_of(hop).put(hop, State::Taken, 0);
}

UnsentRequest SentOn::take_held(Hop& hop) {
    metrics_.upstream_retained_bytes -= hop.request.bytes.size();
    return std::exchange(hop.request, {});
}

// The first that is held: those behind it wait for it, too.
void SentOn::send_held(const ReplyReceiver* key, int slot) {
    // One that fails at once ends, and may let go others: the line is another then.
    while (true) {
        const auto lines = lines_.find(key);
        if (lines == lines_.end()) return;
        const auto found = lines->second.find(slot);
        if (found == lines->second.end() || found->second.held == 0) return;
        Line& line = found->second;
        const auto next = std::find_if(line.hops.begin(), line.hops.end(),
                                       [](const Hop& hop) { return hop.state == State::Held; });
        if (line.must_wait(*next, next->node)) return;
        line.put(*next, State::UnderWay, next->node);
        const UnsentRequest request = take_held(*next);
        send_(next->node, request, next->is_asking);
    }
}

bool SentOn::is_of(const UnsentRequest& request, const ReplyReceiver& receiver) {
    return hop_of(request).key == &receiver;
}

void SentOn::forget(const ReplyReceiver& receiver) {
    const auto found = lines_.find(&receiver);
    if (found == lines_.end()) return;
    std::vector<Hop*> nowhere;
    for (auto& [slot, line] : found->second) {
        for (Hop& hop : line.hops) {
            hop.receiver = nullptr;
            if (hop.state != State::UnderWay) nowhere.push_back(&hop);
        }
    }
    // Nobody has them: no reply will end them. None of those that they held up is sent: all of
    // these are among them.
    for (Hop* const hop : nowhere)
        take_out(*hop);
}

// It has had its reply, unless its receiver has gone within that.
void SentOn::end(Hop& hop) {
    if (!known_.contains(&hop)) return;
    const ReplyReceiver* const key = hop.key;
    const int slot = hop.slot;
    take_out(hop);
    send_held(key, slot);
}

// It is destroyed later: this may be its own call.
void SentOn::take_out(Hop& hop) {
    const auto lines = lines_.find(hop.key);
    const auto found = lines->second.find(hop.slot);
    Line& line = found->second;
    line.take_out(hop);
    static_cast<void>(take_held(hop));
    const auto known = known_.find(&hop);
    over_.splice(over_.end(), line.hops, known->second);
    known_.erase(known);
    if (line.hops.empty()) lines->second.erase(found);
    if (lines->second.empty()) lines_.erase(lines);
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
