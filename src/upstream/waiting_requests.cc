#include "nearkey/upstream/waiting_requests.h"

#include "nearkey/upstream/error_place.h"
#include "nearkey/upstream/handshake.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace nearkey {

bool WaitingRequests::has_room(size_t bytes) const {
    return context_.queued_commands < context_.options.queue_commands_max &&
           context_.queued_bytes + bytes <= context_.options.queue_bytes_max;
}

void WaitingRequests::queue(std::string_view bytes, const PendingRequest& request) {
    add({std::string(bytes), request, context_.loop.now_ms() + context_.options.queue_timeout_ms,
         true});
}

// Held back as long as a request waits for its reply, and as much as would fit into the socket's
// buffers: a server that is only slow must make no difference.
void WaitingRequests::hold_back(std::string_view bytes, const PendingRequest& request) {
    add({std::string(bytes), request, request.deadline_ms == 0 ? UINT64_MAX : request.deadline_ms,
         false});
}

void WaitingRequests::add(UnsentRequest entry) {
    count(entry);
    requests_.push_back(std::move(entry));
}

void WaitingRequests::put_back(std::deque<UnsentRequest> sent) {
    for (const UnsentRequest& entry : sent)
        count(entry);
    std::move(sent.rbegin(), sent.rend(), std::front_inserter(requests_));
}

void WaitingRequests::count(const UnsentRequest& entry) {
    if (entry.is_limited) {
        ++context_.queued_commands;
        context_.queued_bytes += entry.bytes.size();
    }
    context_.metrics.upstream_unsent_bytes += entry.bytes.size();
    ++context_.metrics.queued;
    context_.watch();
}

void WaitingRequests::uncount(const UnsentRequest& entry) {
    if (entry.is_limited) {
        --context_.queued_commands;
        context_.queued_bytes -= entry.bytes.size();
    }
    context_.metrics.upstream_unsent_bytes -= entry.bytes.size();
    --context_.metrics.queued;
}

void WaitingRequests::shorten_patience() {
    const uint64_t latest_ms = context_.loop.now_ms() + context_.options.queue_timeout_ms;
    for (UnsentRequest& entry : requests_)
        entry.deadline_ms = std::min(entry.deadline_ms, latest_ms);
}

UnsentRequest WaitingRequests::take() {
    UnsentRequest first = std::move(requests_.front());
    requests_.pop_front();
    uncount(first);
    return first;
}

void WaitingRequests::forget(const ReplyReceiver& receiver) {
    for (UnsentRequest& entry : requests_) {
        if (entry.request.receiver == &receiver) entry.request.receiver = nullptr;
    }
}

void WaitingRequests::fail_first(std::string_view error) {
    const UnsentRequest first = take();
    const PendingRequest& request = first.request;
    if (request.receiver == nullptr) return;
    if (request.is_retry) {
        ++context_.metrics.upstream_lost_total;
    } else if (error.starts_with("UPSTREAMDOWN") || is_refusal_of_connection(error)) {
        ++context_.metrics.upstream_down_total;
    }
    const std::string words =
        with_place(request.is_retry ? kUpstreamLost : error, context_, first.bytes);
    request.fail(words, context_.latency);
}

void WaitingRequests::fail_all(std::string_view error) {
    while (!requests_.empty())
        fail_first(error);
}

// Their deadlines stand in no order: some have none.
void WaitingRequests::expire_held_back(uint64_t now_ms) {
    for (size_t i = 0; i < requests_.size(); ++i) {
        PendingRequest& request = requests_[i].request;
        if (requests_[i].deadline_ms > now_ms || request.receiver == nullptr) continue;
        const PendingRequest late = request;
        request.receiver = nullptr;
        ++context_.metrics.upstream_timeout_total;
        const std::string_view error =
            late.is_retry ? kUpstreamLost
                          : "UPSTREAMTIMEOUT Valkey did not answer in time; not sent";
        late.fail(with_place(error, context_, requests_[i].bytes), context_.latency);
    }
    // Requests of clients that have gone, too: they may be held back for long.
    std::erase_if(requests_, [this](const UnsentRequest& entry) {
        if (entry.request.receiver != nullptr) return false;
        uncount(entry);
        return true;
    });
}

void WaitingRequests::expire_queued(uint64_t now_ms, uint64_t patience_ms,
                                    const std::string& words) {
    while (!requests_.empty()) {
        const UnsentRequest& first = requests_.front();
        if (first.deadline_ms + (first.request.is_retry ? 0 : patience_ms) > now_ms) return;
        fail_first(words.empty() ? "UPSTREAMDOWN Valkey can't be reached; not sent"
                                 : std::string_view{words});
    }
}

}  // namespace nearkey
