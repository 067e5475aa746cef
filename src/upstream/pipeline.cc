#include "nearkey/upstream/pipeline.h"

#include "nearkey/base/check.h"
#include "nearkey/base/probes.h"
#include "nearkey/upstream/error_place.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
void trace_send(const PendingRequest& request, size_t bytes) {
    if (!probes::is_traced(nearkey_upstream_send_semaphore)) return;
    const CommandCount* const command = request.timing.command;
    probes::upstream_send({request.receiver, request.ticket},
                          command == nullptr ? "" : command->name().c_str(), bytes);
}
}  // namespace

inline PendingRequest Pipeline::pending(const Request& request) const {
    const bool waits = request.kind == RequestKind::Blocking;
    const uint64_t timeout_ms = context_.options.request_timeout_ms;
    return {
        .receiver = request.receiver,
        .deadline_ms =
            waits ? 0
                  : context_.loop.now_ms() + timeout_ms - std::min(request.waited_ms, timeout_ms),
        .ticket = request.ticket,
        .retained = 0,
        .replies = request.replies,
        .kind = request.kind,
        .is_retry = false,
        .timing = request.timing,
    };
}

void Pipeline::transmit(std::string_view bytes, const PendingRequest& request) {
    in_flight_.add(request, bytes);
    trace_send(request, bytes.size());
    bytes_sent_ += bytes.size();
    if (request.deadline_ms != 0) context_.watch();
    socket_->send(bytes);
}

void Pipeline::send_now(const Request& request) {
    transmit(request.bytes, pending(request));
}

void Pipeline::send_owned(const Request& request, Buffer bytes) {
    const PendingRequest entry = pending(request);
    if (gate_ != Gate::Open) {
        waiting_.hold_back(bytes.view(), entry);
        return;
    }
    in_flight_.add(entry, {});
    trace_send(entry, bytes.size());
    bytes_sent_ += bytes.size();
    context_.watch();
    socket_->send_owned(std::move(bytes));
}

bool Pipeline::keep(const Request& request) {
    return keep(request.bytes, pending(request));
}

bool Pipeline::send_again(const UnsentRequest& request) {
    if (gate_ != Gate::Open) return keep(request.bytes, request.request);
    transmit(request.bytes, request.request);
    return false;
}

bool Pipeline::keep(std::string_view bytes, const PendingRequest& entry) {
    if (gate_ == Gate::Held) {
        waiting_.hold_back(bytes, entry);
        return false;
    }
    const bool is_full = !waiting_.has_room(bytes.size());
    if (!is_full && gate_ == Gate::Away) {
        waiting_.queue(bytes, entry);
        return true;
    }
    if (is_full) ++context_.metrics.queue_full_total;
    ++context_.metrics.upstream_down_total;
    const std::string_view error =
        is_full ? "UPSTREAMDOWN Valkey is away and the queue is full; not sent"
                : "UPSTREAMDOWN the connection is closed; not sent";
    entry.fail(with_place(error, context_, bytes), context_.latency);
    return false;
}

void Pipeline::ask(ReplyReceiver& receiver, uint32_t ticket, std::string_view bytes,
                   uint32_t replies) {
    transmit(bytes, {.receiver = &receiver,
                     .deadline_ms = 0,
                     .ticket = ticket,
                     .retained = 0,
                     .replies = replies,
                     .kind = RequestKind::Own,
                     .is_retry = false,
                     .timing = {}});
}

void Pipeline::send_raw(std::string_view bytes) {
    bytes_sent_ += bytes.size();
    socket_->send(bytes);
}

void Pipeline::forget(const ReplyReceiver& receiver) {
    in_flight_.forget(receiver);
    waiting_.forget(receiver);
}

void Pipeline::pass(const ReplyReceiver& receiver, Pipeline& to) {
    in_flight_.take_reads(receiver, [&to](const PendingRequest& again, std::string_view bytes) {
        to.transmit(bytes, again);
    });
    waiting_.forget(receiver);
}

void Pipeline::set_ready(Gate gate) {
    NEARKEY_CHECK(gate >= Gate::Held && socket_ != nullptr);
    gate_ = gate;
    while (!waiting_.empty() && gate_ == Gate::Open) {
        const UnsentRequest next = waiting_.take();
        if (next.request.receiver == nullptr) continue;
        if (next.bytes.empty()) {
            next.request.receiver->on_reply_end(next.request.ticket);
        } else {
            transmit(next.bytes, next.request);
        }
    }
}

void Pipeline::let_go() {
    if (gate_ == Gate::Held) set_ready(Gate::Open);
}

std::string Pipeline::open_socket(const SocketOptions& options) {
    socket_ = std::make_unique<HiredisSocket>(context_.loop, context_.scratch, context_.metrics,
                                              socket_events_);
    return socket_->connect(options);
}

void Pipeline::end(Gate gate, bool is_left) {
    gate_ = gate;
    context_.reaper.take(std::move(socket_));
    waiting_.put_back(in_flight_.end(is_left));
    waiting_.shorten_patience();
}

void Pipeline::shrink() {
    in_flight_.shrink();
    if (socket_ != nullptr) socket_->shrink();
}

size_t Pipeline::memory_bytes() const {
    return in_flight_.memory_bytes() + (socket_ == nullptr ? 0 : socket_->memory_bytes());
}

}  // namespace nearkey
