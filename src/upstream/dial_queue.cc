#include "nearkey/upstream/dial_queue.h"

#include "nearkey/upstream/connection.h"

#include <algorithm>

namespace nearkey {

DialQueue::DialQueue(Loop& loop, const UpstreamOptions& options, uint64_t seed)
    : options_(options),
      backoff_(options.backoff_min_ms, options.backoff_max_ms, seed),
      timer_(loop, [this] { dial_next(); }) {
}

void DialQueue::want(Connection& connection) {
    const bool is_listed =
        std::find(waiting_.begin(), waiting_.end(), &connection) != waiting_.end();
    if (is_listed || connection.state() == ConnectionState::Closed) return;
    waiting_.push_back(&connection);
    // Not at once: this can be said from inside a failing dial.
    if (!timer_.is_active() && (is_proven_ || scout_ == nullptr)) timer_.start_once(0);
}

void DialQueue::dial_next() {
    // A dial that fails at once has started the timer again.
    while (!waiting_.empty() && scout_ == nullptr && !timer_.is_active()) {
        Connection* next = waiting_.front();
        waiting_.pop_front();
        if (next->state() != ConnectionState::Idle) continue;
        if (!is_proven_) scout_ = next;
        next->dial();
    }
}

void DialQueue::note_ready(const Connection& connection) {
    if (scout_ == &connection) scout_ = nullptr;
    is_proven_ = true;
    backoff_.reset();
    if (!waiting_.empty()) timer_.start_once(0);
}

void DialQueue::note_failed(Connection& connection) {
    if (scout_ == &connection) scout_ = nullptr;
    is_proven_ = false;
    dial_again(connection, backoff_.next_ms());
}

void DialQueue::note_lost(Connection& connection) {
    dial_again(connection, is_proven_ ? 0 : backoff_.next_ms());
}

void DialQueue::dial_again(Connection& connection, uint64_t delay_ms) {
    const bool is_needed = connection.use().is_used() || connection.pipeline().has_waiting();
    if (is_needed && connection.state() != ConnectionState::Closed) waiting_.push_back(&connection);
    if (!waiting_.empty() && scout_ == nullptr) timer_.start_once(delay_ms);
}

void DialQueue::note_closed(const Connection& connection) {
    std::erase(waiting_, &connection);
    if (scout_ != &connection) return;
    scout_ = nullptr;
    timer_.start_once(0);
}

void DialQueue::restart() {
    scout_ = nullptr;
    backoff_.reset();
    if (!waiting_.empty()) timer_.start_once(0);
}

void DialQueue::apply_options() {
    backoff_.set_limits(options_.backoff_min_ms, options_.backoff_max_ms);
}

}  // namespace nearkey
