// What a session tells Latency and the slow log of its requests, and HotKeys of its reads.
#include "nearkey/session/session.h"

#include <utility>

namespace nearkey {

namespace {
// More wait to be written only with a client that takes nothing; the rest is entered as it is.
constexpr size_t kSlowMax = 16;
}  // namespace

// Of a command that goes to Valkey now. A blocking one waits because it is told to: that is no
// latency, and it is not counted.
RequestTiming Session::timing(const CommandView& command, RequestKind kind) {
    RequestTiming timing{.start_us = command_us_};
    if (kind == RequestKind::Blocking) return timing;
    timing.series = RequestTiming::series_of(
        family(), is_cache_read_ ? RequestOutcome::Miss : RequestOutcome::Forwarded);
    if (spec_ == nullptr) return timing;
    timing.command = spec_->shown_name;
    if (spec_->first_key == 0 || spec_->first_key >= command.size()) return timing;
    const std::string_view key = command[spec_->first_key];
    if (spec_->is_readonly && context_.hot_keys != nullptr &&
        context_.hot_keys->is_due(HotKeys::Outcome::Miss)) {
        context_.hot_keys->note(key, HotKeys::Outcome::Miss, context_.loop.now_ms());
    }
    if (context_.slow_log != nullptr) timing.key_hash = context_.slow_log->key_hash().hash(key);
    return timing;
}

// Its reply is complete, or is an error of our own. It is entered once it is written.
void Session::on_slow_request(uint32_t ticket, const RequestTiming& timing, SlowEnd end) {
    if (ended_ || context_.slow_log == nullptr) return;
    const Latency& latency = context_.pool.latency();
    const bool was_sent = timing.sent_us != 0;
    SlowEntry entry;
    entry.session = id_;
    entry.request = ticket;
    if (tags_ != nullptr) entry.tag = tags_->of(ticket);
    if (timing.command != nullptr) entry.command = *timing.command;
    entry.key_hash = timing.key_hash;
    entry.has_failed = end == SlowEnd::Failure;
    entry.route = lease_ != nullptr ? SlowEntry::Route::Dedicated : SlowEntry::Route::Shared;
    entry.total_us = latency.turn_us() - timing.start_us;
    entry.queue_us = was_sent ? latency.queue_us(timing) : entry.total_us;
    entry.upstream_us = was_sent ? latency.upstream_us(timing) : 0;
    if (slow_.size() == kSlowMax) finish_slow();
    slow_.push_back({std::move(entry), latency.turn_us()});
}

void Session::finish_slow() {
    if (slow_.empty()) return;
    const uint32_t now = Loop::now_us();
    for (auto& [entry, since_us] : slow_) {
        entry.write_us = now - since_us;
        entry.total_us += entry.write_us;
        context_.slow_log->add(std::move(entry));
    }
    slow_.clear();
}

}  // namespace nearkey
