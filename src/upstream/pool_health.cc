// Whether Valkey serves, as /readyz says it.
//
//   PONG, or a refusal of no more than PING and writes (MISCONF, NOPERM)  ──▶ ready
//   a refusal of reads (LOADING, MASTERDOWN, BUSY)                        ──▶ not ready once it has
//                                   lasted for unready_after_ms, or if it was not ready before
//   no answer for unready_after_ms, or no connection                      ──▶ not ready
//
// It decides nothing for clients: whatever they send is sent on while there is a connection.
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/pool.h"

#include <fmt/format.h>

#include <string>
#include <utility>

namespace nearkey {

// If no connection is left, Valkey is away; before its commands are known, it was never there.
void ConnectionPool::note_absence(const std::string& reason) {
    if (metrics_.upstream_connections > 0 && has_commands_) return;
    if (metrics_.upstream_connections == 0) is_proven_ = false;
    if (is_news(reason)) {
        log_.warning(health_.is_ready ? "upstream_lost" : "upstream_unreachable",
                     {{"upstream", redacted(target_->url)}, {"reason", reason}});
    }
    why_unknown_ = redacted(target_->url) + ": " + reason;
    set_health(false, why_unknown_);
}

void ConnectionPool::on_heartbeat(Connection& connection) {
    if (connection.is_retired()) return;
    note_pong(connection.pong());
    if (connection.pong().serves) {
        ++metrics_.heartbeats_total;
        if (cache() != nullptr) {
            cache()->drop_lost();
            track_postponed();
            renew_sources();
        }
    }
    update_health();
}

void ConnectionPool::on_database_refused(Connection& connection) {
    known_databases_.erase(connection.database());
}

// Logged when the first word changes: the others may hold figures.
void ConnectionPool::note_pong(const Pong& pong) {
    const auto code = [](const std::string& words) {
        return std::string_view(words).substr(0, words.find(' '));
    };
    const bool is_news = code(pong.refusal) != code(pong_.refusal);
    pong_ = pong;
    if (pong.serves) last_served_ms_ = loop_.now_ms();
    if (!is_news) return;
    if (pong.refusal.empty()) {
        log_.info("upstream_answers", {{"reason", "PONG"}});
    } else {
        log_.warning("upstream_refuses", {{"reason", pong.refusal}});
    }
}

void ConnectionPool::update_health() {
    if (metrics_.upstream_connections == 0) return;  // on_lost() has said why
    const bool is_late = last_served_ms_ + options_.unready_after_ms < loop_.now_ms();
    // A script that is BUSY for a moment makes nobody unready; a server that came back LOADING
    // makes nobody ready.
    const bool is_refusing = !pong_.serves && !pong_.refusal.empty();
    if (!has_commands_) {
        set_health(false, why_unknown_);
    } else if (is_refusing && (is_late || !health_.is_ready)) {
        set_health(false, pong_.refusal);
    } else if (is_late) {
        set_health(false, fmt::format("no PONG for {} ms", options_.unready_after_ms));
    } else {
        set_health(true, pong_.refusal.empty() ? "PONG" : pong_.refusal);
    }
}

void ConnectionPool::set_health(bool is_ready, std::string reason) {
    const bool changed = is_ready != health_.is_ready;
    if (changed) health_.since_ms = loop_.now_ms();
    health_.is_ready = is_ready;
    health_.reason = std::move(reason);
    metrics_.ready = is_ready ? 1 : 0;
    if (!changed) return;
    if (is_ready) {
        log_.info("ready", {{"upstream", redacted(target_->url)}});
    } else {
        log_.warning("not_ready", {{"reason", health_.reason}});
    }
    events_.on_health_changed(health_);
}

}  // namespace nearkey
