#include "nearkey/upstream/sources.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/dispatch/plan.h"
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/node_connections.h"
#include "nearkey/upstream/server_stats.h"
#include "nearkey/upstream/suspicion.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace nearkey {

namespace {
// What was read over any connection of the node is no longer known to be true.
void stop_tracking(NodeConnections& connections) {
    connections.shared().for_each([](Connection& connection) { connection.tracking().stop(); });
    connections.receiver()->tracking().stop();
}
}  // namespace

Sources::Sources(ConnectionContext& context, NodeConnections& connections, const ServerStats& stats,
                 const Suspicion& suspicion)
    : context_(context),
      connections_(connections),
      stats_(stats),
      suspicion_(suspicion),
      is_broadcast_(context_.cache != nullptr && cache().options().tracking == "broadcast"),
      is_told_of_all_(!is_broadcast_) {
}

void Sources::send_untracked(Connection& connection, std::string_view command,
                             ReplyReceiver& receiver) {
    if (!are_reads_tracked(connection)) {
        connection.send({command, &receiver, kUntrackedTicket, RequestKind::Write});
        return;
    }
    const std::string bytes = std::string(kUntracked).append(command);
    connection.send({bytes, &receiver, kUntrackedTicket - 1, RequestKind::Write, 2});
}

const Connection& Sources::receiver() const {
    return *connections_.receiver();
}

NearCache::SourceId Sources::source_of(const Connection& connection) const {
    if (pttl_refused_ms_ != 0 && Loop::boot_ms() < pttl_refused_ms_ + kRefusedAgainMs) {
        return NearCache::kNoSource;
    }
    // A SWAPDB from now on would go unnoticed.
    if (!stats_.counts_swapdb()) return NearCache::kNoSource;
    if (!is_broadcast_) return connection.tracking().source();
    const bool is_same_server =
        connection.is_ready() && connection.address() == receiver().address();
    return is_same_server ? receiver().tracking().source() : NearCache::kNoSource;
}

bool Sources::is_told_of_prefix(std::string_view key) const {
    return !is_cluster_ && begins_with_one_of(key, cache().options().prefixes);
}

std::string Sources::describe(NearCache::SourceId source) const {
    std::string description;
    connections_.shared().for_each([&](const Connection& connection) {
        if (connection.tracking().source() != source || !description.empty()) return;
        description =
            fmt::format("RESP{} database {}, CLIENT ID {}", number_of(connection.protocol()),
                        connection.database(), connection.probe().server_id());
        if (connection.protocol() == Protocol::Resp2) {
            description += fmt::format(", told of changes by CLIENT ID {}", receiver_id_);
        }
    });
    if (description.empty() && is_broadcast_ && receiver().tracking().source() == source) {
        return fmt::format("any, told of changes by CLIENT ID {} (broadcast)", receiver_id_);
    }
    return description;
}

// Without a key's time to live nothing can be stored.
void Sources::note_pttl_refused() {
    pttl_refused_ms_ = Loop::boot_ms();
    if (!context_.failures.is_news("pttl")) return;
    context_.log.warning(
        "near_cache_off",
        {{"reason", "NOPERM: nearkey's user may not run PTTL"},
         {"what", "how long a key lives is unknown: nothing is stored or served here"}});
}

// --- tracking ---

void Sources::start() {
    receiver_id_ = 0;
    pttl_refused_ms_ = 0;
    refusal_.clear();
    connections_.make_receiver();
}

void Sources::note_mode(bool is_cluster) {
    if (std::exchange(is_cluster_, is_cluster) == is_cluster || context_.cache == nullptr) return;
    is_told_of_all_ = !is_broadcast_ && !is_cluster_;
    if (is_cluster_) stop_storing();
}

void Sources::stop_storing() {
    stop_tracking(connections_);
    cache().clear(InvalidationCause::Upstream, Loop::boot_ms());
    set_tracking(false);
}

void Sources::set_tracking(bool is_tracking) {
    is_tracking_ = is_tracking;
    if (context_.redirects == nullptr) context_.metrics.near_cache_tracking = is_tracking ? 1 : 0;
}

void Sources::warn_of_cluster() {
    warn_off("the upstream is a node of a cluster (HELLO says mode cluster)",
             "nothing is stored or served from the near cache until it is none (docs/cluster.md)");
}

void Sources::leave_to_members() {
    stop_tracking(connections_);
    connections_.drop_receiver();
    is_cluster_ = false;
    is_told_of_all_ = !is_broadcast_;
}

// A replica of a cluster refuses all reads: what it tells is of use once it is a primary again.
bool Sources::is_of_replica(const Connection& connection) const {
    return context_.redirects != nullptr && connection.probe().is_replica();
}

void Sources::leave_replica() {
    stop_tracking(connections_);
    is_postponed_ = true;
}

void Sources::warn_off(std::string_view reason, std::string_view what) {
    if (!context_.is_first) return;
    context_.log.warning("near_cache_off",
                         {{"reason", std::string(reason)}, {"what", std::string(what)}});
}

void Sources::note_ready(Connection& connection) {
    if (&connection != &receiver()) {
        if (!connection.use().is_leased()) track(connection);
        return;
    }
    receiver_id_ = connection.probe().server_id();
    if (is_broadcast_ && !is_cluster_) {
        start_broadcast();
    } else {
        track_all(Protocol::Resp2);
    }
}

void Sources::start_broadcast() {
    if (is_of_replica(receiver())) {
        is_postponed_ = true;
        return;
    }
    connections_.receiver()->tracking().start_broadcast(cache().options().prefixes);
}

void Sources::track(Connection& connection) {
    if (is_broadcast_ || is_cluster_) return;
    if (is_of_replica(connection)) {
        is_postponed_ = true;
        return;
    }
    // If the name has moved since, the receiver's number may be another client's.
    const bool is_told =
        receiver().is_ready() && receiver_id_ != 0 && receiver().address() == connection.address();
    if (connection.protocol() == Protocol::Resp3) {
        connection.tracking().start(0);
    } else if (is_told) {
        connection.tracking().start(receiver_id_);
    }
}

void Sources::track_all(Protocol protocol) {
    connections_.shared().for_each(protocol, [this](Connection& connection) {
        if (!connection.is_ready()) return;
        if (!is_broken(Rule::FailoverVoid)) connection.tracking().stop();
        track(connection);
    });
}

// Tracks the connections that are not because Valkey was BUSY when they were made.
void Sources::track_postponed() {
    if (!std::exchange(is_postponed_, false)) return;
    const bool is_wanted = is_broadcast_ && !is_cluster_ && receiver().is_ready();
    if (is_wanted && !are_reads_tracked(receiver())) start_broadcast();
    connections_.shared().for_each([this](Connection& connection) {
        if (connection.is_ready() && !are_reads_tracked(connection)) track(connection);
    });
}

void Sources::note_lost(const Connection& connection) {
    if (&connection == connections_.receiver()) {
        receiver_id_ = 0;
        connections_.shared().for_each(
            Protocol::Resp2, [](Connection& redirected) { redirected.tracking().stop(); });
    } else if (is_broadcast_ && !connection.use().is_leased()) {
        // Another server than the one that tells of changes may answer retried reads.
        cache().clear(InvalidationCause::Lost, Loop::boot_ms());
    }
}

void Sources::note_tracking(Connection& connection, std::string_view error) {
    set_tracking(error.empty());
    if (error.empty()) {
        refusal_.clear();
        renew();
        // Replies stored from now on are then proven, and served, before the next beat.
        connection.probe().send_heartbeat();
        connections_.receiver()->probe().send_heartbeat();
        return;
    }
    if (error.starts_with("BUSY")) {
        is_postponed_ = true;
        return;
    }
    // The receiver may have been lost meanwhile; then this is no refusal.
    if (connection.protocol() == Protocol::Resp2 && !receiver().is_ready()) return;
    // Logged once for all connections, however often they are made anew.
    if (refusal_ == error) return;
    refusal_ = error;
    warn_off(error, "Valkey refuses CLIENT TRACKING: nothing is stored or served here");
}

// --- what is proven ---

void Sources::note_heartbeat() {
    track_postponed();
    renew();
}

// Every change before this time to what was read over the connection is known. REQUIRES: it is
// tracked itself.
uint64_t Sources::proven_ms(const Connection& connection) const {
    const uint64_t answered_ms =
        connection.protocol() == Protocol::Resp3
            ? connection.probe().proven_ms()
            : std::min(connection.probe().proven_ms(), receiver().probe().proven_ms());
    return std::max(connection.tracking().since_ms(), answered_ms);
}

uint64_t Sources::oldest_proof_ms() const {
    const uint64_t now_ms = Loop::boot_ms();
    uint64_t age_ms = 0;
    connections_.shared().for_each([&](const Connection& connection) {
        if (are_reads_tracked(connection)) {
            age_ms = std::max(age_ms, now_ms - proven_ms(connection));
        }
    });
    return age_ms;
}

void Sources::renew() {
    if (suspicion_.is_suspect()) return;
    if (is_broadcast_ && are_reads_tracked(receiver())) {
        renew(receiver(),
              std::max(receiver().tracking().since_ms(), receiver().probe().proven_before_ms()));
    }
    connections_.shared().for_each([this](const Connection& connection) {
        if (are_reads_tracked(connection)) renew(connection, proven_ms(connection));
    });
}

void Sources::renew(const Connection& connection, uint64_t proven_ms) {
    cache().renew_source(connection.tracking().source(),
                         std::min(proven_ms, stats_.swapdb_known_ms()));
}

void Sources::suspend(const Connection& connection) {
    const uint64_t now_ms = Loop::boot_ms();
    const auto suspend = [&](const Connection& proven) {
        if (are_reads_tracked(proven)) cache().suspend_source(proven.tracking().source(), now_ms);
    };
    suspend(connection);
    if (&connection == connections_.receiver())
        connections_.shared().for_each(Protocol::Resp2, suspend);
}

void Sources::suspend_all() {
    if (connections_.receiver() != nullptr) suspend(*connections_.receiver());
    connections_.shared().for_each([this](const Connection& connection) { suspend(connection); });
}

}  // namespace nearkey
