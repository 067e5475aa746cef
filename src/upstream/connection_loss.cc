// How a connection ends, and what becomes of what it owes.
#include "nearkey/upstream/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace nearkey {

void Connection::set_state(ConnectionState next) {
    static constexpr Count Metrics::*kGauges[] = {
        &Metrics::upstream_connections_idle, &Metrics::upstream_connections_connecting,
        &Metrics::upstream_connections_handshaking, &Metrics::upstream_connections};
    static_assert(static_cast<size_t>(ConnectionState::Closed) == std::size(kGauges));
    const auto count = [this](ConnectionState state, uint64_t step) {
        if (state == ConnectionState::Closed) return;
        context_.metrics.*(is_retired_ ? &Metrics::upstream_connections_retired
                                       : kGauges[static_cast<size_t>(state)]) += step;
    };
    count(std::exchange(state_, next), UINT64_MAX);
    count(next, 1);
}

void Connection::on_socket_lost(const std::string& reason) {
    if (!is_end_expected_ || owner_ == nullptr) {
        lose(reason, Loss::Socket);
        return;
    }
    disconnect(ConnectionState::Closed);
    owner_->on_connection_lost();
    context_.events.on_closed(*this, reason);
}

void Connection::lose(const std::string& reason, Loss loss) {
    if (state_ == ConnectionState::Idle || state_ == ConnectionState::Closed) return;
    const bool was_ready = is_ready();
    if (!was_ready) ++target_->failed_dials;
    if (!was_ready && loss != Loss::Auth) target_->refusal.clear();
    static constexpr Count Metrics::*kLosses[] = {
        &Metrics::upstream_lost_socket_total, &Metrics::upstream_lost_mute_total,
        &Metrics::upstream_lost_auth_total, &Metrics::upstream_lost_malformed_total};
    ++(context_.metrics.*
       (was_ready ? kLosses[static_cast<size_t>(loss)] : &Metrics::upstream_dial_failures_total));
    disconnect(is_retired_ ? ConnectionState::Closed : ConnectionState::Idle);
    if (was_ready) {
        if (owner_ != nullptr) owner_->on_connection_lost();
        if (is_retired_) {
            fail_waiting(fmt::format("UPSTREAMDOWN {}", reason));
            context_.events.on_closed(*this, reason);
        } else {
            context_.events.on_lost(*this, reason);
        }
    } else {
        context_.events.on_dial_failed(*this, reason);
    }
}

// The server says what it can't have been asked for, or what is not RESP. From here on nobody knows
// whose reply is whose: nothing of it is delivered any more.
void Connection::on_violation(const std::string& reason) {
    ++context_.metrics.upstream_protocol_errors_total;
    if (is_ready()) {
        context_.log.warning("upstream_violation", {{"reason", reason},
                                                    {"connection", server_id},
                                                    {"dedicated", is_leased ? "yes" : "no"}});
    }
    lose(reason, Loss::Malformed);
}

// What was in flight is queued again or fails.
void Connection::disconnect(ConnectionState next) {
    if (is_ready()) {
        identity = {.name = context_.options.client_name, .library = {}, .library_version = {}};
    }
    set_state(next);
    stop_tracking();
    tracking_asked_ = tracking_void_ = 0;
    proven_ms_ = proven_before_ms_ = 0;
    push_.clear();
    connect_timer_.stop();
    resolution_.reset();
    context_.reaper.take(std::move(socket_));
    handshake_.reset();
    busy_words_.clear();
    heartbeat_sent_ms_ = 0;
    expected_word_.clear();
    reply_bytes_ = 0;
    head_waits_ = false;
    silent_since_ms_ = 0;
    retry_or_fail_in_flight();
}

void Connection::retry_or_fail_in_flight() {
    Ring<InFlight> lost = std::exchange(in_flight_, {});
    const Buffer retained = std::exchange(retained_, {});
    count_retained();
    std::string_view bytes = retained.view();
    expired_ = 0;
    context_.metrics.in_flight -= lost.size();
    for (; !lost.empty(); lost.pop_front()) {
        InFlight entry = lost.front();
        const std::string_view request = bytes.substr(0, entry.retained);
        bytes.remove_prefix(entry.retained);
        if (entry.receiver == nullptr) {
            --context_.metrics.tombstones;
        } else if (entry.retained > 0) {
            // Behind nothing: the queue of a connection that was ready is empty.
            if (!entry.receiver->on_reply_void(entry.ticket)) continue;
            entry.retained = 0;
            entry.is_retry = true;
            ++context_.metrics.reads_retried_total;
            queue(request, entry,
                  std::min(entry.deadline_ms,
                           context_.loop.now_ms() + context_.options.queue_timeout_ms));
        } else {
            if (entry.receiver != &own_receiver_) ++context_.metrics.upstream_lost_total;
            fail(entry, "UPSTREAMLOST the connection to Valkey was lost; may have run");
        }
    }
}

void Connection::close(const std::string& reason) {
    if (state_ == ConnectionState::Closed) return;
    disconnect(ConnectionState::Closed);
    fail_waiting(fmt::format("UPSTREAMDOWN {}", reason));
    context_.events.on_closed(*this, reason);
}

void Connection::finish_if_silent(uint64_t now_ms) {
    if (silent_since_ms_ == 0) return;
    if (bytes_received_ != silent_bytes_) {
        silent_bytes_ = bytes_received_;
        silent_since_ms_ = now_ms;
    } else if (silent_since_ms_ + kSilentMs <= now_ms) {
        silent_since_ms_ = 0;
        finish_sending();
    }
}

void Connection::expire(uint64_t now_ms) {
    shrink_if_sparse();
    expire_waiting(now_ms);
    expire_in_flight(now_ms);
    look_at_head(now_ms);
    if (handshake_ && handshake_->failure() != Handshake::Failure::None) begin_handshake();
    if (!is_ready()) return;
    finish_if_silent(now_ms);
    const uint64_t patience = context_.options.tombstone_timeout_ms;
    const bool has_old_tombstone = !in_flight_.empty() && in_flight_[0].receiver == nullptr &&
                                   in_flight_[0].deadline_ms != 0 &&
                                   in_flight_[0].deadline_ms + patience < now_ms;
    const bool is_mute =
        heartbeat_sent_ms_ != 0 &&
        heartbeat_sent_ms_ + context_.options.request_timeout_ms + patience < now_ms;
    if (!has_old_tombstone && !is_mute) return;
    ++context_.metrics.tombstone_closes_total;
    lose("no answer for too long", Loss::Mute);
}

void Connection::look_at_head(uint64_t now_ms) {
    const uint32_t now_us = context_.latency.turn_us();
    const bool waits = is_ready() && !in_flight_.empty() && reply_bytes_ == 0 &&
                       now_us - in_flight_[0].timing.sent_us > kHeadWaitsUs &&
                       now_us - answered_us_ > kHeadWaitsUs;
    if (waits && !head_waits_) head_waits_since_ms_ = now_ms;
    head_waits_ = waits;
}

// --- held up ---

void Connection::tell_held_up(uint64_t now_ms) {
    if (!head_waits_ || context_.heard_ms <= head_waits_since_ms_ + kPassedForMs) return;
    if (now_ms < told_held_up_ms_ + kTellAgainMs || !waiting_.empty()) return;
    told_held_up_ms_ = now_ms;
    // Each receiver's entries together, those that keep it here first.
    std::vector<std::tuple<ReplyReceiver*, bool, size_t>> owed;
    owed.reserve(in_flight_.size());
    for (size_t i = 0; i < in_flight_.size(); ++i) {
        const InFlight& entry = in_flight_[i];
        const bool may_pass = i > 0 && entry.retained > 0;
        if (entry.receiver != nullptr) owed.emplace_back(entry.receiver, may_pass, i);
    }
    std::sort(owed.begin(), owed.end());
    // Told in the order of their requests, not of their addresses.
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

void Connection::pass(ReplyReceiver& receiver, Connection& to) {
    std::string_view bytes = retained_.view();
    for (size_t i = 0; i < in_flight_.size(); ++i) {
        InFlight& entry = in_flight_[i];
        const std::string_view request = bytes.substr(0, entry.retained);
        bytes.remove_prefix(entry.retained);
        if (entry.receiver != &receiver) continue;
        InFlight again = entry;
        again.retained = 0;
        again.is_retry = true;
        to.transmit(request, again);
        ++context_.metrics.reads_retried_total;
    }
    forget(receiver);
}

bool Connection::wants_expiry() {
    const bool has_tombstone =
        !in_flight_.empty() && in_flight_[0].receiver == nullptr && in_flight_[0].deadline_ms != 0;
    return silent_since_ms_ != 0 || has_tombstone || expired_ < in_flight_.size() ||
           heartbeat_sent_ms_ != 0 || !waiting_.empty();
}

// Requests of one connection have the same timeout, so deadlines stand in order; one that had
// waited before it was sent fails no earlier than what was sent before it.
void Connection::expire_in_flight(uint64_t now_ms) {
    while (expired_ < in_flight_.size()) {
        InFlight& entry = in_flight_[expired_];
        if (entry.deadline_ms > now_ms) return;
        ++expired_;
        if (entry.deadline_ms == 0 || entry.receiver == nullptr) continue;
        const InFlight late = entry;
        entry.receiver = nullptr;
        ++context_.metrics.tombstones;
        ++context_.metrics.upstream_timeout_total;
        fail(late, "UPSTREAMTIMEOUT Valkey did not answer in time; may have run");
    }
}

void Connection::expire_waiting(uint64_t now_ms) {
    if (waiting_.empty() || waiting_.front().queue_deadline_ms > now_ms) return;
    const uint64_t patience = patience_ms();
    while (!waiting_.empty()) {
        const Waiting& first = waiting_.front();
        if (first.queue_deadline_ms + (first.request.is_retry ? 0 : patience) > now_ms) return;
        std::string words = busy_words_;
        if (words.empty() && target_ != nullptr) words = target_->refusal;
        fail_first_waiting(words.empty() ? "UPSTREAMDOWN Valkey can't be reached; not sent"
                                         : std::string_view{words});
    }
}

}  // namespace nearkey
