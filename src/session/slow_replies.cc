#include "nearkey/session/slow_replies.h"

#include "nearkey/loop/loop.h"

#include <utility>

namespace nearkey {

namespace {
// More wait to be written only with a client that takes nothing; the rest is entered as it is.
constexpr size_t kSlowMax = 16;
}  // namespace

void SlowReplies::add(SlowEntry entry, const RequestTiming& timing, const Latency& latency,
                      SlowLog& log) {
    const bool was_sent = timing.sent_us != 0;
    if (timing.command != nullptr) entry.command = timing.command->name();
    entry.key_hash = timing.key_hash;
    entry.total_us = latency.turn_us() - timing.start_us;
    entry.queue_us = was_sent ? latency.queue_us(timing) : entry.total_us;
    entry.upstream_us = was_sent ? latency.upstream_us(timing) : 0;
    if (slow_.size() == kSlowMax) enter(log);
    slow_.push_back({std::move(entry), latency.turn_us()});
}

void SlowReplies::enter(SlowLog& log) {
    const uint32_t now = Loop::now_us();
    for (auto& [entry, since_us] : slow_) {
        entry.write_us = now - since_us;
        entry.total_us += entry.write_us;
        log.add(std::move(entry));
    }
    slow_.clear();
}

}  // namespace nearkey
