#include "nearkey/upstream/connection.h"

#include "nearkey/base/check.h"
#include "nearkey/base/random.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/upstream/advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kPing = "*1\r\n$4\r\nPING\r\n";
constexpr size_t kOwnReplyMax = size_t{64} << 10;
// A smaller buffer of retained requests is not counted: Metrics' in_flight stands for it.
constexpr size_t kRetainedMin = size_t{16} << 10;
}  // namespace

Connection::Connection(ConnectionContext& context, int protocol, int database)
    : context_(context),
      target_(context.target),
      protocol_(protocol),
      database_(database),
      connect_timer_(context.loop, [this] { on_connect_timeout(); }),
      own_receiver_(*this) {
    identity.name = context.options.client_name;
    ++context_.metrics.upstream_connections_idle;
}

Connection::~Connection() {
    CHECK(is_idle());
    set_state(ConnectionState::Closed);
}

Connection::InFlight Connection::in_flight_entry(const Request& request) const {
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

void Connection::send_owned(const Request& request, Buffer bytes) {
    in_flight_.push_back(in_flight_entry(request));
    in_flight_.back().timing.sent_us = context_.latency.turn_us();
    ++context_.metrics.in_flight;
    bytes_sent_ += bytes.size();
    watch();
    socket_->send_owned(std::move(bytes));
}

void Connection::send(const Request& request) {
    if (is_ready()) {
        transmit(request.bytes, in_flight_entry(request));
        return;
    }
    const InFlight entry = in_flight_entry(request);
    const bool is_full =
        context_.queued_commands >= context_.options.queue_commands_max ||
        context_.queued_bytes + request.bytes.size() > context_.options.queue_bytes_max;
    if (is_full || state_ == ConnectionState::Closed) {
        if (is_full) ++context_.metrics.queue_full_total;
        ++context_.metrics.upstream_down_total;
        fail(entry, is_full ? "UPSTREAMDOWN Valkey is away and the queue is full; not sent"
                            : "UPSTREAMDOWN the connection is closed; not sent");
        return;
    }
    queue(request.bytes, entry, context_.loop.now_ms() + context_.options.queue_timeout_ms);
    if (state_ == ConnectionState::Idle) context_.events.on_wants_dial(*this);
}

void Connection::transmit(std::string_view bytes, const InFlight& request) {
    InFlight& entry = in_flight_.push_back(request);
    entry.timing.sent_us = context_.latency.turn_us();
    if (entry.kind == RequestKind::Read && !entry.is_retry &&
        bytes.size() <= context_.options.retry_bytes_max) {
        retained_.append(bytes);
        entry.retained = static_cast<uint32_t>(bytes.size());
        if (retained_.capacity() > kRetainedMin) count_retained();
    }
    ++context_.metrics.in_flight;
    bytes_sent_ += bytes.size();
    if (request.deadline_ms != 0) watch();
    socket_->send(bytes);
}

void Connection::queue(std::string_view bytes, const InFlight& entry, uint64_t deadline_ms) {
    waiting_.push_back({std::string(bytes), entry, deadline_ms});
    ++context_.queued_commands;
    context_.queued_bytes += bytes.size();
    context_.metrics.upstream_unsent_bytes += bytes.size();
    ++context_.metrics.queued;
    watch();
}

void Connection::send_waiting() {
    while (!waiting_.empty() && is_ready()) {
        const Waiting next = take_waiting();
        if (next.request.receiver != nullptr) transmit(next.bytes, next.request);
    }
}

Connection::Waiting Connection::take_waiting() {
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    --context_.queued_commands;
    context_.queued_bytes -= next.bytes.size();
    context_.metrics.upstream_unsent_bytes -= next.bytes.size();
    --context_.metrics.queued;
    return next;
}

// `error` is for what was never sent; a read that was sent once may have run.
void Connection::fail_first_waiting(std::string_view error) {
    const InFlight request = take_waiting().request;
    if (request.receiver == nullptr) return;
    if (request.is_retry) {
        ++context_.metrics.upstream_lost_total;
    } else if (error.starts_with("UPSTREAMDOWN")) {
        ++context_.metrics.upstream_down_total;
    }
    fail(request,
         request.is_retry ? "UPSTREAMLOST the connection to Valkey was lost; may have run" : error);
}

// REQUIRES: it has a receiver.
void Connection::fail(const InFlight& request, std::string_view error) {
    if (request.timing.series != RequestTiming::kUncounted) {
        context_.latency.note_end(request.timing, RequestOutcome::Failed);
        if (context_.latency.is_slow(request.timing)) {
            request.receiver->on_slow_request(request.ticket, request.timing,
                                              ReplyReceiver::SlowEnd::Failure);
        }
    }
    for (uint32_t i = 0; i < request.replies; ++i)
        request.receiver->on_request_failed(request.ticket + i, error);
}

void Connection::fail_waiting(std::string_view error) {
    while (!waiting_.empty())
        fail_first_waiting(error);
}

void Connection::forget(const ReplyReceiver& receiver) {
    for (size_t i = 0; i < in_flight_.size(); ++i) {
        if (in_flight_[i].receiver != &receiver) continue;
        in_flight_[i].receiver = nullptr;
        ++context_.metrics.tombstones;
    }
    for (Waiting& waiting : waiting_) {
        if (waiting.request.receiver == &receiver) waiting.request.receiver = nullptr;
    }
}

void Connection::send_own(Own what, std::string_view bytes) {
    transmit(bytes, {.receiver = &own_receiver_,
                     .deadline_ms = 0,
                     .ticket = static_cast<uint32_t>(what),
                     .retained = 0,
                     .replies = 1,
                     .kind = RequestKind::Blocking,
                     .is_retry = false,
                     .timing = {}});
}

void Connection::continue_handshake() {
    if (handshake_->is_complete()) {
        become_ready();
        return;
    }
    if (handshake_->failure() == Handshake::Failure::None) {
        send_own(Own::Handshake, handshake_->command());
        return;
    }
    on_handshake_failed();
}

// A server that answers can be reached: whoever waits is told in its own words, and whoever comes
// before the next attempt as well.
void Connection::on_handshake_failed() {
    const Handshake::Failure failure = handshake_->failure();
    const std::string error = handshake_->error();
    const std::string words = handshake_->words();
    is_unauthorized_ = failure == Handshake::Failure::Auth;
    if (is_unauthorized_ && own_url_ != nullptr) {
        fail_waiting(error);
        close(error);
        return;
    }
    if (is_unauthorized_) {
        context_.events.on_auth_refused(*this, error);
        if (when_refused == WhenRefused::WaitOrTell) {
            close("Valkey refuses nearkey's own password; not sent");
            return;
        }
    }
    const bool is_database = failure == Handshake::Failure::Database && !is_primary;
    if (is_database && error.starts_with("BUSY") && when_refused != WhenRefused::Fail) {
        busy_words_ = error;
        return;
    }
    if (!words.empty()) fail_waiting(words);
    if (is_database) {
        context_.events.on_database_refused(*this);
        close(error);
        return;
    }
    target_->refusal = words;
    lose(error, Loss::Auth);
}

void Connection::become_ready() {
    connect_timer_.stop();
    set_state(ConnectionState::Ready);
    ready_ms_ = context_.loop.now_ms();
    target_->last_good_address = address_;
    ++context_.metrics.upstream_connects_total;
    const Value hello = handshake_->hello();
    pong_ = handshake_->pong();
    handshake_.reset();
    target_->refusal.clear();
    busy_words_.clear();
    own_url_.reset();
    send_waiting();
    context_.events.on_ready(*this, hello);
}

bool Connection::on_bytes(std::string_view bytes) {
    if (!is_retired_) context_.heard_ms = context_.loop.now_ms();
    bytes_received_ += bytes.size();
    while (!bytes.empty()) {
        if (is_tunnel_ && in_flight_.empty()) {
            if (bytes.front() == '-') note_error(bytes);
            owner_->on_tunnel_bytes(bytes);
            return socket_ != nullptr;
        }
        size_t taken = 0;
        const ScanResult result = scanner_.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            on_violation(is_ready() ? "malformed reply" : name_stranger(bytes));
            return false;
        }
        const bool is_end = result == ScanResult::Complete;
        if (scanner_.type() == '>') {
            take_push(bytes.substr(0, taken), is_end);
        } else if (in_flight_.empty()) {
            on_violation("a reply that nobody asked for");
            return false;
        } else {
            if (scanner_.type() == '-') note_error(bytes);
            deliver(bytes.substr(0, taken), is_end);
        }
        if (socket_ == nullptr) return false;
        bytes.remove_prefix(taken);
    }
    return true;
}

// One that is cut before its first word ends is not looked at: another will come whole.
void Connection::note_error(std::string_view bytes) {
    if (bytes.starts_with("-READONLY") && !is_retired_) context_.events.on_readonly(*this);
}

// REQUIRES: it has a receiver, its reply is complete, and it is counted.
inline void Connection::note_latency(const InFlight& request) {
    context_.latency.note_reply(request.timing);
    if (!context_.latency.is_slow(request.timing)) return;
    request.receiver->on_slow_request(request.ticket, request.timing,
                                      ReplyReceiver::SlowEnd::Reply);
}

inline void Connection::take_head(const InFlight& head) {
    if (head.receiver == nullptr) --context_.metrics.tombstones;
    --context_.metrics.in_flight;
    if (expired_ > 0) --expired_;
    if (head.retained > 0) {
        retained_.consume(head.retained);
        if (counted_retained_ > 0 && retained_.empty()) count_retained();
    }
    in_flight_.pop_front();
}

void Connection::count_retained() {
    context_.metrics.upstream_retained_bytes -= counted_retained_;
    counted_retained_ = retained_.capacity();
    context_.metrics.upstream_retained_bytes += counted_retained_;
}

void Connection::deliver(std::string_view bytes, bool is_end) {
    ReplyReceiver* receiver = in_flight_.front().receiver;
    const uint32_t ticket = in_flight_.front().ticket;
    if (receiver != nullptr) receiver->on_reply_bytes(ticket, bytes);
    if (!is_end || socket_ == nullptr) {  // its receiver may have closed the connection
        reply_bytes_ += bytes.size();
        return;
    }
    reply_bytes_ = 0;
    head_waits_ = false;
    answered_us_ = context_.latency.turn_us();
    InFlight& head = in_flight_.front();
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

void Connection::begin_tunnel() {
    CHECK(is_ready() && owner_ != nullptr);
    is_tunnel_ = true;
}

void Connection::send_through(std::string_view bytes) {
    if (!is_ready()) return;
    bytes_sent_ += bytes.size();
    socket_->send(bytes);
}

void Connection::tell_of_room() {
    if (is_ready()) socket_->tell_of_room();
}

void Connection::on_socket_room() {
    if (owner_ != nullptr && is_tunnel_) owner_->on_tunnel_room();
}

void Connection::finish_when_silent() {
    if (!is_ready()) return;
    silent_since_ms_ = context_.loop.now_ms();
    silent_bytes_ = bytes_received_;
    watch();
}

void Connection::finish_sending() {
    if (is_ready()) socket_->finish_sending();
}

void Connection::pause_reading() {
    if (is_ready()) socket_->pause_reading();
}

void Connection::resume_reading() {
    if (is_ready()) socket_->resume_reading();
}

void Connection::OwnReceiver::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (reply_.size() + bytes.size() <= kOwnReplyMax) reply_ += bytes;
}

void Connection::OwnReceiver::on_reply_end(uint32_t ticket) {
    connection_.on_own_reply(static_cast<Own>(ticket), std::exchange(reply_, {}));
}

void Connection::OwnReceiver::on_request_failed(uint32_t, std::string_view) {
    reply_.clear();
}

void Connection::on_own_reply(Own what, std::string_view reply) {
    if (what == Own::Challenge) {
        on_challenge_reply(reply);
        return;
    }
    const Value value = parse_value(reply).value_or(Value{});
    if (what == Own::Handshake) {
        handshake_->on_reply(value);
        continue_handshake();
        return;
    }
    if (what == Own::Tracking) {
        on_tracking_reply(value);
        return;
    }
    heartbeat_sent_ms_ = 0;
    if (value.text != "PONG" && !value.is_error()) {
        on_violation("another reply than that to PING");
        return;
    }
    if (value.text.starts_with("NOAUTH")) {
        context_.events.on_auth_refused(*this, value.text);
        lose(value.text, Loss::Auth);
        return;
    }
    pong_ = read_pong(value).value_or(Pong{});
    // A refusal stands behind the news as well; one by a server that runs nothing proves nothing.
    if (pong_.serves) proven_before_ms_ = std::exchange(proven_ms_, heartbeat_sent_boot_ms_);
    context_.events.on_heartbeat(*this);
}

void Connection::send_heartbeat() {
    if (!is_ready() || heartbeat_sent_ms_ != 0) return;
    heartbeat_sent_ms_ = context_.loop.now_ms();
    heartbeat_sent_boot_ms_ = Loop::boot_ms();
    send_own(Own::Heartbeat, kPing);
}

void Connection::challenge() {
    CHECK(is_ready() && is_idle());
    const std::string word = fmt::format("nearkey:{:016x}{:016x}", random_word(), random_word());
    append_bulk(expected_word_, word);
    std::string command;
    append_array_header(command, 2);
    append_bulk(command, "PING");
    append_bulk(command, word);
    ++context_.metrics.upstream_challenges_total;
    send_own(Own::Challenge, command);
}

void Connection::on_challenge_reply(std::string_view reply) {
    if (reply == std::exchange(expected_word_, {})) return;
    // A server that refuses PING (MISCONF, BUSY) proves nothing, and does nothing wrong.
    if (reply.starts_with('-')) {
        close("not proven to owe nothing");
    } else {
        on_violation("another reply than that to PING");
    }
}

}  // namespace nearkey
