// What the admin pages get to see of the daemon.
#include "nearkey/daemon/daemon.h"

#include <algorithm>

namespace nearkey {

AdminState Daemon::admin_state() const {
    const uint64_t now = loop_.now_ms();
    const auto seconds_since = [now](uint64_t then_ms) {
        return static_cast<double>(now - std::min(now, then_ms)) / 1000.0;
    };
    if (stage_ == Stage::Draining) {
        return {false, "draining", "told to stop", seconds_since(draining_since_ms_)};
    }
    const UpstreamHealth& health = workers_->health();
    return {health.is_ready, health.is_ready ? "ready" : "not ready", health.reason,
            seconds_since(health.since_ms)};
}

double Daemon::uptime_seconds() const {
    return static_cast<double>(loop_.now_ms() - started_ms_) / 1000;
}

std::string Daemon::config_text() const {
    return to_toml(config_);
}

std::shared_ptr<void> Daemon::hold_still() {
    return std::make_shared<Workers::Pause>(*workers_);
}

std::optional<uint64_t> Daemon::clear_near_cache() {
    if (cache_ == nullptr) return std::nullopt;
    const uint64_t entries = metrics_.near_cache_entries;
    cache_->clear(InvalidationCause::Asked, Loop::boot_ms());
    return entries;
}

}  // namespace nearkey
