// When Valkey counts as away, so that reads may be answered with what may be untrue by now
// (near_cache.stale_if_unavailable_ms).
//
// It is away while no connection is ready, while it is LOADING, or while nothing at all has come
// from it for two heartbeats: that is before what is stored has been unproven for too long, so that
// no read in between drops it. Whatever comes from it ends the absence before it is handled. What
// belonged to a connection that was lost is dropped when any connection becomes ready, before it
// has answered a read, and behind LOADING with the first PONG; what belongs to one that was only
// silent is served again once that has proven it.
#include "nearkey/upstream/pool.h"

namespace nearkey {

namespace {
constexpr uint64_t kBeatsOfSilence = 2;
// One could be due to us: whoever was held up himself has not listened.
constexpr uint32_t kTicksOfSilence = 2;
}  // namespace

bool ConnectionPool::is_silent() const {
    return context_.heard_ms + kBeatsOfSilence * beat_interval_ms_ < loop_.now_ms();
}

bool ConnectionPool::serves_stale() const {
    if (context_.cache == nullptr || context_.cache->options().stale_if_unavailable_ms == 0) {
        return false;
    }
    return metrics_.upstream_connections == 0 || is_loading() ||
           (silent_ticks_ >= kTicksOfSilence && is_silent());
}

void ConnectionPool::watch_absence() {
    silent_ticks_ = is_silent() ? silent_ticks_ + 1 : 0;
    const uint64_t is_stale = serves_stale() ? 1 : 0;
    if (is_stale == metrics_.near_cache_stale) return;
    metrics_.near_cache_stale = is_stale;
    const auto hits = static_cast<int64_t>(metrics_.near_cache_stale_hits_total);
    if (is_stale != 0) {
        const uint64_t limit_ms = context_.cache->options().stale_if_unavailable_ms;
        log_.warning("near_cache_stale", {{"what", "Valkey is away: what is stored is served"},
                                          {"limit_ms", static_cast<int64_t>(limit_ms)},
                                          {"stale_hits", hits}});
    } else {
        log_.info("near_cache_fresh", {{"stale_hits", hits}});
    }
}

}  // namespace nearkey
