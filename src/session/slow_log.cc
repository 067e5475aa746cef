#include "nearkey/session/slow_log.h"

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/base/wall_clock.h"

#include <algorithm>
#include <utility>

namespace nearkey {

std::string_view name_of(SlowEntry::Route route) {
    return route == SlowEntry::Route::Shared ? "shared" : "dedicated";
}

SlowLog::SlowLog(const SlowLogOptions& options, const KeyHash& key_hash, Log& log, Metrics& metrics)
    : options_(options), key_hash_(key_hash), log_(log), metrics_(metrics) {
}

uint32_t SlowLog::threshold_us() const {
    if (options_.threshold_ms == 0) return UINT32_MAX;
    return static_cast<uint32_t>(std::min<uint64_t>(options_.threshold_ms * 1000, UINT32_MAX));
}

std::deque<SlowEntry> SlowLog::entries() const {
    const std::lock_guard lock(mutex_);
    return entries_;
}

void SlowLog::add(SlowEntry entry) {
    const std::lock_guard lock(mutex_);
    ++metrics_.slow_requests_total;
    entry.id = ++last_id_;
    entry.time_ms = wall_clock_ms();
    if (options_.log) {
        log_.warning("slow_request",
                     {{"slow_id", static_cast<int64_t>(entry.id)},
                      {"session", static_cast<int64_t>(entry.session)},
                      {"request", static_cast<int64_t>(entry.request)},
                      {"tag", std::string_view(entry.tag)},
                      {"command", std::string_view(entry.command)},
                      {"key_hash", std::string_view(key_hash_.shown(entry.key_hash))},
                      {"route", name_of(entry.route)},
                      {"queue_us", static_cast<int64_t>(entry.queue_us)},
                      {"upstream_us", static_cast<int64_t>(entry.upstream_us)},
                      {"write_us", static_cast<int64_t>(entry.write_us)},
                      {"total_us", static_cast<int64_t>(entry.total_us)}});
    }
    if (options_.entries_max == 0) return;
    if (entries_.size() == options_.entries_max) entries_.pop_front();
    entries_.push_back(std::move(entry));
}

}  // namespace nearkey
