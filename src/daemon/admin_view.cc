#include "nearkey/daemon/admin_view.h"

#include <algorithm>

namespace nearkey {

namespace {
constexpr uint64_t kRecentMs = 200;

// As all event loops know it. Nothing: there is none, or its slots are not known yet.
std::optional<ClusterFacts> cluster_facts(const Metrics& metrics) {
    if (metrics.cluster_nodes == 0) return std::nullopt;
    return ClusterFacts{.nodes = metrics.cluster_nodes,
                        .nodes_away = metrics.cluster_nodes_away,
                        .slots_unserved = metrics.cluster_slots_unserved};
}
}  // namespace

AdminState AdminView::admin_state() const {
    const uint64_t now = now_ms();
    const auto seconds_since = [now](uint64_t then_ms) {
        return static_cast<double>(now - std::min(now, then_ms)) / 1000.0;
    };
    if (draining_since_ms_) {
        return {false, "draining", "told to stop", seconds_since(*draining_since_ms_)};
    }
    const UpstreamHealth& health = parts_.workers.health();
    const bool is_degraded = health.is_ready && !health.degraded.empty();
    return {.ready = health.is_ready,
            .state = is_degraded       ? "degraded"
                     : health.is_ready ? "ready"
                                       : "not ready",
            .reason = is_degraded ? health.degraded : health.reason,
            .since_seconds = seconds_since(health.since_ms),
            .server = parts_.workers.server(),
            .upstream = redacted(parts_.workers.target().url),
            .sentinels = failover_.sentinels(),
            .cluster = cluster_facts(metrics())};
}

std::string AdminView::recent_metrics(MetricsFormat format) {
    RecentText& recent = recent_[static_cast<size_t>(format)];
    if (recent.text.empty() || now_ms() - recent.made_ms >= kRecentMs) {
        recent = {metrics_text(metrics(), format), now_ms()};
    }
    return recent.text;
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
