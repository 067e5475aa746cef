#include "nearkey/daemon/admin_view.h"

#include <algorithm>

namespace nearkey {

AdminState AdminView::admin_state() const {
    const uint64_t now = now_ms();
    const auto seconds_since = [now](uint64_t then_ms) {
        return static_cast<double>(now - std::min(now, then_ms)) / 1000.0;
    };
    if (draining_since_ms_) {
        return {false, "draining", "told to stop", seconds_since(*draining_since_ms_)};
    }
    const UpstreamHealth& health = parts_.workers.health();
    return {health.is_ready,         health.is_ready ? "ready" : "not ready",
            health.reason,           seconds_since(health.since_ms),
            parts_.workers.server(), failover_.sentinels()};
}

std::string AdminView::config_text() const {
    return to_toml(parts_.config);
}

std::optional<uint64_t> AdminView::clear_near_cache() {
    if (parts_.cache == nullptr) return std::nullopt;
    const uint64_t entries = parts_.metrics.near_cache_entries;
    parts_.cache->clear(InvalidationCause::Asked, Loop::boot_ms());
    return entries;
}

}  // namespace nearkey
