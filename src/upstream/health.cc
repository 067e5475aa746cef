#include "nearkey/upstream/health.h"

#include "nearkey/upstream/connection.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kBeatsOfSilence = 2;
// One could be our fault: a loop that was held up itself has not listened.
constexpr uint32_t kTicksOfSilence = 2;
}  // namespace

void Health::start() {
    state_.since_ms = context_.loop.now_ms();
    note_asking();
}

void Health::note_asking() {
    why_unknown_ = "asking Valkey for its commands";
}

void Health::note_unknown(const std::string& reason) {
    why_unknown_ = redacted(context_.target->url) + ": " + reason;
}

void Health::note_absence(const std::string& reason) {
    if (context_.failures.is_news(reason)) {
        context_.log.warning(state_.is_ready ? "upstream_lost" : "upstream_unreachable",
                             {{"upstream", redacted(context_.target->url)}, {"reason", reason}});
    }
    note_unknown(reason);
    set(false, why_unknown_);
}

// Logged when the first word changes: the others may hold figures.
void Health::note_pong(const Pong& pong) {
    const auto code = [](const std::string& words) {
        return std::string_view(words).substr(0, words.find(' '));
    };
    const bool is_news = code(pong.refusal) != code(pong_.refusal);
    pong_ = pong;
    if (pong.serves) last_served_ms_ = context_.loop.now_ms();
    if (!is_news) return;
    if (pong.refusal.empty()) {
        context_.log.info("upstream_answers", {{"reason", "PONG"}});
    } else {
        context_.log.warning("upstream_refuses", {{"reason", pong.refusal}});
    }
}

void Health::update(const Hindrances& hindrances) {
    if (context_.ready == 0) return;  // note_absence() has said why
    const uint64_t patience_ms = context_.options.unready_after_ms;
    const bool is_late = last_served_ms_ + patience_ms < context_.loop.now_ms();
    // A script that is BUSY for a moment makes nobody unready; a server that came back LOADING
    // makes nobody ready.
    const bool is_refusing = !pong_.serves && !pong_.refusal.empty();
    if (hindrances.is_unknown) {
        set(false, why_unknown_);
    } else if (hindrances.is_unconfirmed) {
        set(false, "commands are held back: no Sentinel says that this is still the primary");
    } else if (is_refusing && (is_late || !state_.is_ready)) {
        set(false, pong_.refusal);
    } else if (is_late) {
        set(false, fmt::format("no PONG for {} ms", patience_ms));
    } else {
        set(true, pong_.refusal.empty() ? "PONG" : pong_.refusal);
    }
}

void Health::set(bool is_ready, std::string reason) {
    const bool changed = is_ready != state_.is_ready;
    if (changed) state_.since_ms = context_.loop.now_ms();
    state_.is_ready = is_ready;
    state_.reason = std::move(reason);
    if (!changed) return;
    if (is_ready) {
        context_.log.info("ready", {{"upstream", redacted(context_.target->url)}});
    } else {
        context_.log.warning("not_ready", {{"reason", state_.reason}});
    }
    events_.on_health_changed(state_);
}

// --- away ---

uint64_t Health::silence_limit_ms() const {
    return kBeatsOfSilence * beat_interval_ms_;
}

bool Health::is_silent_for(uint64_t duration_ms) const {
    return silent_ticks_ >= kTicksOfSilence &&
           context_.heard_ms + duration_ms < context_.loop.now_ms();
}

bool Health::serves_stale() const {
    if (context_.cache == nullptr || context_.cache->options().stale_if_unavailable_ms == 0) {
        return false;
    }
    // Its slots may have another owner by now, who takes writes.
    if (context_.redirects != nullptr) return false;
    return context_.ready == 0 || is_loading() || is_silent_for(silence_limit_ms());
}

void Health::tick() {
    const bool is_silent = context_.heard_ms + silence_limit_ms() < context_.loop.now_ms();
    silent_ticks_ = is_silent ? silent_ticks_ + 1 : 0;
    const uint64_t is_stale = serves_stale() ? 1 : 0;
    Metrics& metrics = context_.metrics;
    if (is_stale == metrics.near_cache_stale) return;
    metrics.near_cache_stale = is_stale;
    const auto hits = static_cast<int64_t>(metrics.near_cache_stale_hits_total);
    if (is_stale != 0) {
        const uint64_t limit_ms = context_.cache->options().stale_if_unavailable_ms;
        context_.log.warning("near_cache_stale",
                             {{"what", "Valkey is away: what is stored is served"},
                              {"limit_ms", static_cast<int64_t>(limit_ms)},
                              {"stale_hits", hits}});
    } else {
        context_.log.info("near_cache_fresh", {{"stale_hits", hits}});
    }
}

}  // namespace nearkey
