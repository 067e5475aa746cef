#include "nearkey/upstream/node_coherence.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/resp/slot.h"

#include <fmt/format.h>

#include <algorithm>

namespace nearkey {

namespace {
// A client that waits longer than that for another's equal read reads for itself: the other's
// connection may be stuck.
constexpr uint64_t kFillWaitMaxMs = 100;
constexpr size_t kBucketsPerBeat = 8192;
// Each beat renews the proofs that max_staleness_ms asks for, well before they are too old.
constexpr uint64_t kBeatsPerBound = 3;
// Broadcast needs two beats to prove anything.
constexpr uint64_t kBeatsPerBroadcastBound = 4;
}  // namespace

NodeCoherence::NodeCoherence(ConnectionContext& context, NodeConnections& connections,
                             const ServerCatalog& catalog, const Suspicion& suspicion,
                             const Place& place)
    : context_(context),
      connections_(connections),
      stats_(context, catalog, [this] { sources_.renew(); }),
      sources_(context, connections, stats_, suspicion),
      own_proofs_(context, connections, sources_),
      place_(place),
      beat_interval_ms_(context_.options.heartbeat_interval_ms) {
    own_proofs_.set_patience_ms(beat_interval_ms_);
    if (context_.cache == nullptr) return;
    touch_ = std::make_unique<TouchReporter>(context_, connections_.shared());
    auditor_ = std::make_unique<Auditor>(*this, context_, connections_.shared());
}

std::string NodeCoherence::describe(NearCache::SourceId source) const {
    const std::string words = sources_.describe(source);
    if (!words.empty()) return words;
    return !is_of_loops_ ? "lost" : "one of another event loop's";
}

void NodeCoherence::bound_staleness(uint64_t max_staleness_ms) {
    max_staleness_ms_ = max_staleness_ms;
    const uint64_t beats = sources_.is_broadcast() ? kBeatsPerBroadcastBound : kBeatsPerBound;
    beat_interval_ms_ = context_.options.heartbeat_interval_ms;
    if (is_on()) {
        beat_interval_ms_ = std::clamp(max_staleness_ms / beats, uint64_t{1}, beat_interval_ms_);
    }
    own_proofs_.set_patience_ms(beat_interval_ms_);
}

void NodeCoherence::start() {
    if (!is_on()) return;
    sources_.start();
    touch_->forget_policy();
}

// A cluster's nodes that are known as such may store: the cluster says when slots move.
void NodeCoherence::note_mode(bool is_cluster) {
    if (context_.cache == nullptr || place_.role == Role::Member || place_.role == Role::Seed) {
        return;
    }
    const bool was_off = sources_.is_off();
    sources_.note_mode(is_cluster);
    if (!was_off && sources_.is_off() && place_.role == Role::OnlyServer) {
        sources_.warn_of_cluster();
    }
}

void NodeCoherence::decide(bool is_seed) {
    if (is_seed) place_ = {Role::Seed, kSeedNumber};
    if (context_.cache == nullptr) return;
    if (is_seed) {
        sources_.leave_to_members();
    } else {
        place_.role = Role::OnlyServer;
        if (sources_.is_off()) sources_.warn_of_cluster();
    }
}

void NodeCoherence::prove_by_slot(int slot) {
    context_.ownership_question.clear();
    if (slot < 0) return;
    const std::string key = fmt::format("nearkey:{{{}}}", tag_of(static_cast<uint16_t>(slot)));
    append_command(context_.ownership_question, {"EXISTS", key});
}

void NodeCoherence::leave_replica() {
    if (is_on() && !is_broken(Rule::FailoverVoid)) sources_.leave_replica();
}

void NodeCoherence::note_ready(Connection& connection) {
    if (!is_on()) return;
    sources_.note_ready(connection);
    // Nothing is stored before the answer.
    const bool is_primary = &connection == &connections_.shared().primary();
    if (is_primary && !sources_.is_off()) stats_.ask(connection);
}

void NodeCoherence::note_lost(const Connection& connection) {
    // Another server, or the same started anew, may have counted to the same numbers.
    if (&connection == &connections_.shared().primary()) stats_.note_lost();
    sources_.note_lost(connection);
}

void NodeCoherence::note_commands() {
    if (is_on() && !sources_.is_off()) stats_.ask(connections_.shared().primary());
}

void NodeCoherence::note_heartbeat() {
    if (!is_on()) return;
    context_.cache->drop_lost();
    sources_.note_heartbeat();
}

void NodeCoherence::leave_former(Former former) {
    stats_.forget();
    const bool is_failover = former == Former::IsNoPrimary;
    const bool is_kept = is_broken(is_failover ? Rule::FailoverVoid : Rule::Upstream);
    if (is_on() && !is_kept) context_.cache->clear(InvalidationCause::Upstream, Loop::boot_ms());
}

void NodeCoherence::tick() {
    if (is_on()) context_.cache->end_long_waits(Loop::boot_ms() - kFillWaitMaxMs);
    own_proofs_.end_late();
}

void NodeCoherence::beat() {
    if (context_.cache == nullptr) return;
    Connection& primary = connections_.shared().primary();
    touch_->beat(primary, context_.loop.now_ms());
    auditor_->beat();
    if (place_.role != Role::Member) context_.cache->sweep(kBucketsPerBeat, Loop::boot_ms());
    if (place_.role == Role::Seed) return;
    if (context_.redirects == nullptr) {
        context_.metrics.near_cache_lease_ms = sources_.oldest_proof_ms();
    }
    if (!sources_.is_off()) stats_.ask(primary);
}

NodeGauges NodeCoherence::gauges() const {
    NodeGauges gauges{.dedicated_idle = connections_.leases().idle().size(),
                      .dedicated_max = context_.options.dedicated_max,
                      .certificate_end_s = context_.node_certificate_end_s};
    if (context_.cache == nullptr) return gauges;
    gauges.is_touching = touch_->is_touching();
    if (!is_on()) return gauges;
    gauges.is_tracking = sources_.is_tracking();
    gauges.lease_ms = sources_.oldest_proof_ms();
    return gauges;
}

void NodeCoherence::apply_options() {
    bound_staleness(max_staleness_ms_);
    if (auditor_ != nullptr) auditor_->schedule();
}

}  // namespace nearkey
