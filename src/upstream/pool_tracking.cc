// How the near cache is kept true: who is told of changes, and what proves that none is
// outstanding.
//
// A RESP3 connection is told of changes to what it reads itself. A RESP2 one can't be: the
// receiver, a RESP3 connection of the pool's own, is told in its place. Pushes and replies stand in
// order on a connection, so the reply to a PING proves that everything from before the PING has
// arrived. The receiver is told only while the server still has the RESP2 connection, whose loss
// may become known here much later: so that must have answered, too. SWAPDB is never told of; the
// server's own count of it is asked for with each heartbeat.
//
// With near_cache.tracking = "broadcast" the receiver alone is told, of all keys with one of the
// prefixes, for every connection. Replies and news then come over two connections, as with RESP2:
//   - A reply read before a change and handled after the news of it: its fill was voided by the
//   news.
//   - A reply read after a change and handled before the news: it shows the change; what else is
//     stored of the key is older, so the reply waits for a proof (may_overtake).
//   - Valkey sends this news when a turn of its loop ends, so a PING of the same turn is answered
//     before it. The next PING is sent once that answer has come, and so is read in a later turn:
//     it takes two, one after the other, to prove anything (ask_again, proven_before_ms).
//   - A read that is sent again may reach another server than the receiver has: the loss of any
//     shared connection voids everything, and a connection to another address stores nothing.
#include "nearkey/base/sabotage.h"
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/keyspace.h"
#include "nearkey/upstream/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kStats = "*3\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n$8\r\nkeyspace\r\n";
constexpr std::string_view kPing = "*1\r\n$4\r\nPING\r\n";
// What the lease of max_staleness_ms is renewed with must be there well before it ends.
constexpr uint64_t kBeatsPerLease = 3;
// With broadcast it takes two beats to prove anything.
constexpr uint64_t kBeatsPerBroadcastLease = 4;
}  // namespace

void ConnectionPool::bound_staleness(uint64_t max_staleness_ms) {
    max_staleness_ms_ = max_staleness_ms;
    const uint64_t beats = is_broadcast_ ? kBeatsPerBroadcastLease : kBeatsPerLease;
    beat_interval_ms_ =
        std::clamp(max_staleness_ms / beats, uint64_t{1}, options_.heartbeat_interval_ms);
    if (heartbeat_timer_.is_active()) heartbeat_timer_.start_repeating(beat_interval_ms_);
}

// As the server said at HELLO what it is.
void ConnectionPool::note_mode() {
    const bool is_cluster = hello_.text_of("mode") == "cluster";
    if (std::exchange(is_cluster_, is_cluster) == is_cluster || cache() == nullptr) return;
    is_told_of_all_ = !is_broadcast_ && !is_cluster_;
    if (is_cluster_) stop_storing();
}

void ConnectionPool::stop_storing() {
    for (const auto& [key, group] : shared_) {
        for (const auto& connection : group)
            connection->stop_tracking();
    }
    receiver_->stop_tracking();
    cache()->clear(InvalidationCause::Upstream, Loop::boot_ms());
    metrics_.near_cache_tracking = 0;
    warn_off(
        "the upstream is a node of a cluster (HELLO says mode cluster)",
        "nothing is stored or served here until it is none: nearkey does not know clusters yet");
}

void ConnectionPool::warn_off(std::string_view reason, std::string_view what) {
    if (!is_first_) return;
    log_.warning("near_cache_off", {{"reason", std::string(reason)}, {"what", std::string(what)}});
}

void ConnectionPool::start_receiver() {
    receiver_ = std::make_unique<Connection>(context_, 3, 0);
    receiver_->users = 1;
    on_wants_dial(*receiver_);
}

void ConnectionPool::track(Connection& connection) {
    if (is_broadcast_ || is_cluster_) return;
    // Where the name has moved since, the receiver's number may be somebody else's.
    const bool is_told =
        receiver_->is_ready() && receiver_id_ != 0 && receiver_->address() == connection.address();
    if (connection.protocol() == 3) {
        connection.start_tracking(0);
    } else if (is_told) {
        connection.start_tracking(receiver_id_);
    }
}

void ConnectionPool::track_all(int protocol) {
    for (const auto& [key, group] : shared_) {
        if (key.first != protocol) continue;
        for (const auto& connection : group) {
            if (!connection->is_ready()) continue;
            connection->stop_tracking();
            track(*connection);
        }
    }
}

// Those that are not tracked because Valkey was BUSY when they were made.
void ConnectionPool::track_postponed() {
    if (!std::exchange(is_tracking_postponed_, false)) return;
    const bool is_wanted = is_broadcast_ && !is_cluster_ && receiver_->is_ready();
    if (is_wanted && receiver_->source() == NearCache::kNoSource) {
        receiver_->start_broadcast(cache()->options().prefixes);
    }
    for (const auto& [key, group] : shared_) {
        for (const auto& connection : group) {
            const bool is_tracked = connection->source() != NearCache::kNoSource;
            if (connection->is_ready() && !is_tracked) track(*connection);
        }
    }
}

void ConnectionPool::untrack_redirected() {
    receiver_id_ = 0;
    for (const auto& [key, group] : shared_) {
        if (key.first != 2) continue;
        for (const auto& connection : group)
            connection->stop_tracking();
    }
}

void ConnectionPool::on_tracking(Connection& connection, std::string_view error) {
    metrics_.near_cache_tracking = error.empty() ? 1 : 0;
    if (error.empty()) {
        tracking_refusal_.clear();
        renew_sources();
        // What is stored from now on can be proven, and served, before the next beat.
        connection.send_heartbeat();
        receiver_->send_heartbeat();
        return;
    }
    if (error.starts_with("BUSY")) {
        is_tracking_postponed_ = true;
        return;
    }
    // The receiver may have been lost meanwhile; then this is no refusal.
    if (connection.protocol() == 2 && !receiver_->is_ready()) return;
    // Once for all connections, however often they are made anew.
    if (tracking_refusal_ == error) return;
    tracking_refusal_ = error;
    warn_off(error, "Valkey refuses CLIENT TRACKING: nothing is stored or served here");
}

NearCache::SourceId ConnectionPool::source_of(const Connection& connection) const {
    if (pttl_refused_ms_ != 0 && Loop::boot_ms() < pttl_refused_ms_ + kRefusedAgainMs) {
        return NearCache::kNoSource;
    }
    // A SWAPDB from now on would go unnoticed.
    if (!swaps_.is_counting() && !is_swapdb_hidden_) return NearCache::kNoSource;
    if (!is_broadcast_) return connection.source();
    const bool is_same_server =
        connection.is_ready() && connection.address() == receiver_->address();
    return is_same_server ? receiver_->source() : NearCache::kNoSource;
}

bool ConnectionPool::is_told_of_prefix(std::string_view key) const {
    if (is_cluster_) return false;
    const std::vector<std::string>& prefixes = context_.cache->options().prefixes;
    return prefixes.empty() ||
           std::any_of(prefixes.begin(), prefixes.end(),
                       [key](const std::string& prefix) { return key.starts_with(prefix); });
}

// Every change before this time to what was read over the connection is known. REQUIRES: it is
// tracked itself.
uint64_t ConnectionPool::proven_ms(const Connection& connection) const {
    const uint64_t answered_ms = connection.protocol() == 3
                                     ? connection.proven_ms()
                                     : std::min(connection.proven_ms(), receiver_->proven_ms());
    return std::max(connection.tracked_since_ms(), answered_ms);
}

// How long ago what is stored was proven, at worst. Looked at before a beat it is at its longest.
void ConnectionPool::count_lease() {
    const uint64_t now = Loop::boot_ms();
    metrics_.near_cache_lease_ms = 0;
    for (const auto& [key, group] : shared_) {
        for (const auto& connection : group) {
            if (connection->source() == NearCache::kNoSource) continue;
            metrics_.near_cache_lease_ms.raise_to(now - proven_ms(*connection));
        }
    }
}

void ConnectionPool::renew_sources() {
    const auto renew = [this](const Connection& connection, uint64_t proven_ms) {
        if (!is_swapdb_hidden_) proven_ms = std::min(proven_ms, swapdb_proven_ms_);
        cache()->renew_source(connection.source(), proven_ms);
    };
    if (is_broadcast_ && receiver_->source() != NearCache::kNoSource) {
        renew(*receiver_, std::max(receiver_->tracked_since_ms(), receiver_->proven_before_ms()));
    }
    for (const auto& [key, group] : shared_) {
        for (const auto& connection : group) {
            if (connection->source() == NearCache::kNoSource) continue;
            renew(*connection, proven_ms(*connection));
        }
    }
}

void ConnectionPool::suspend_sources(const Connection& connection) {
    const uint64_t now_ms = Loop::boot_ms();
    const auto suspend = [&](const Connection& proven) {
        if (proven.source() != NearCache::kNoSource)
            cache()->suspend_source(proven.source(), now_ms);
    };
    suspend(connection);
    if (&connection != receiver_.get()) return;
    for (const auto& [key, group] : shared_) {
        if (key.first != 2) continue;
        for (const auto& redirected : group)
            suspend(*redirected);
    }
}

bool ConnectionPool::are_reads_tracked(const Connection& connection) const {
    return connection.source() != NearCache::kNoSource;
}

Connection* ConnectionPool::find_ready(int protocol, int database) {
    const auto group = shared_.find({protocol, database});
    if (group == shared_.end()) return nullptr;
    const auto found =
        std::find_if(group->second.begin(), group->second.end(), [](const auto& connection) {
            return connection->is_ready() && !connection->has_waiting() &&
                   !connection->is_congested() && !connection->is_held_up();
        });
    return found == group->second.end() ? nullptr : found->get();
}

// --- proofs on demand ---

void ConnectionPool::SourceProofs::ask() {
    started_ms_ = Loop::boot_ms();
    is_asked_again_ = false;
    pool_.watch();
    ++pool_.metrics_.near_cache_proofs_total;
    if (pool_.receiver_->is_ready()) ask(*pool_.receiver_);
    for (const auto& [key, group] : pool_.shared_) {
        for (const auto& connection : group) {
            if (connection->source() != NearCache::kNoSource) ask(*connection);
        }
    }
}

// Without a deadline: one that is too late proves nothing, but end_late() does.
void ConnectionPool::SourceProofs::ask(Connection& connection) {
    const auto is_it = [&](const Asked& asked) { return asked.connection == &connection; };
    // One that the server keeps waiting while it answers others will not answer soon.
    if (connection.is_passed() || std::any_of(asked_.begin(), asked_.end(), is_it)) {
        pool_.suspend_sources(connection);
        return;
    }
    owe();
    asked_.push_back({&connection, ++last_ticket_, false});
    connection.send({kPing, this, last_ticket_, RequestKind::Blocking});
}

void ConnectionPool::SourceProofs::note_answer(uint32_t ticket) {
    const auto found = std::find_if(asked_.begin(), asked_.end(), [ticket](const Asked& asked) {
        return asked.ticket == ticket;
    });
    const bool is_late = found->is_late;
    asked_.erase(found);
    if (!is_late) on_answer(round());
}

bool ConnectionPool::SourceProofs::ask_again() {
    const bool is_due =
        pool_.is_broadcast_ && pool_.receiver_->is_ready() && !std::exchange(is_asked_again_, true);
    if (!is_due) return false;
    ask(*pool_.receiver_);
    return is_under_way();
}

void ConnectionPool::SourceProofs::end_late() {
    if (!is_under_way()) return;
    const bool is_over = Loop::boot_ms() >= started_ms_ + pool_.beat_interval_ms_;
    const uint32_t ending = round();
    size_t given_up = 0;
    for (Asked& asked : asked_) {
        if (asked.is_late || !(is_over || asked.connection->is_passed())) continue;
        asked.is_late = true;
        ++given_up;
        ++pool_.metrics_.near_cache_proofs_late_total;
        pool_.suspend_sources(*asked.connection);
    }
    for (; given_up > 0; --given_up)
        on_answer(ending);
}

void ConnectionPool::SourceProofs::shrink() {
    ProofRounds::shrink();
    asked_.shrink_to_fit();
}

void ConnectionPool::ask_for_swapdb() {
    if (stats_question_.is_open() || !primary_->is_ready() || is_cluster_) return;
    if (is_swapdb_hidden_ && Loop::boot_ms() < swapdb_sent_ms_ + kRefusedAgainMs) return;
    swapdb_sent_ms_ = Loop::boot_ms();
    stats_question_.ask(*primary_, kStats, RequestKind::Write);
}

void ConnectionPool::on_stats(std::string_view reply) {
    if (reply.starts_with('-')) {
        on_stats_refused(reply);
        return;
    }
    is_swapdb_hidden_ = false;
    note_fields(reply);
    switch (swaps_.note(reply)) {
        case SwapWatch::Verdict::Unchanged:
            break;
        case SwapWatch::Verdict::Swapped:
            cache()->clear(InvalidationCause::SwapDb, Loop::boot_ms());
            break;
        case SwapWatch::Verdict::Resumed:
            cache()->clear(InvalidationCause::Lost, Loop::boot_ms());
            cache()->drop_lost();
            break;
    }
    swapdb_proven_ms_ = is_broken(Rule::SwapDbAsked) ? Loop::boot_ms() : swapdb_sent_ms_;
    renew_sources();
}

void ConnectionPool::on_stats_refused(std::string_view reply) {
    fields_expire_ = true;
    // LOADING and the like pass.
    is_swapdb_hidden_ = reply.starts_with("-NOPERM");
    if (is_swapdb_hidden_) swaps_.forget();
    if (is_swapdb_hidden_ && is_news("swapdb")) {
        log_.warning("swapdb_hidden", {{"reason", std::string(reply.substr(1, 200))}});
    }
}

// Without the time that a key has left nothing can be stored.
void ConnectionPool::on_pttl_refused() {
    pttl_refused_ms_ = Loop::boot_ms();
    if (!is_news("pttl")) return;
    log_.warning("near_cache_off",
                 {{"reason", "NOPERM: nearkey's user may not run PTTL"},
                  {"what", "how long a key lives is unknown: nothing is stored or served here"}});
}

// What was stored while no field was known to expire is served no longer than until this is asked
// for again: between two answers a field may have begun to.
void ConnectionPool::note_fields(std::string_view info) {
    const bool may_expire =
        commands_->find_name("hpexpire") != nullptr && has_expiring_fields(info);
    if (may_expire && !fields_expire_) {
        cache()->clear(InvalidationCause::Fields, Loop::boot_ms());
    }
    fields_expire_ = may_expire;
}

std::string ConnectionPool::describe_source(NearCache::SourceId source) const {
    for (const auto& [key, group] : shared_) {
        for (const auto& connection : group) {
            if (connection->source() != source) continue;
            return fmt::format(
                "RESP{} database {}, CLIENT ID {}{}", key.first, key.second, connection->server_id,
                key.first == 3 ? ""
                               : fmt::format(", told of changes by CLIENT ID {}", receiver_id_));
        }
    }
    if (is_broadcast_ && receiver_->source() == source) {
        return fmt::format("any, told of changes by CLIENT ID {} (broadcast)", receiver_id_);
    }
    return all_proofs_ == nullptr ? "lost" : "one of another event loop's";
}

}  // namespace nearkey
