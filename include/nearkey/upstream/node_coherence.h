// Keeps the near cache true to one server: its connections that are told of changes, its
// statistics, the proofs on demand, and the reports and audits of a sample of the hits.
// Owned by Node. Does nothing if there is no near cache. In a cluster each member does it for its
// own server, and the seed, whose connections store nothing, does what is done once.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/auditor.h"
#include "nearkey/upstream/node_connections.h"
#include "nearkey/upstream/server_stats.h"
#include "nearkey/upstream/source_proofs.h"
#include "nearkey/upstream/sources.h"
#include "nearkey/upstream/target.h"
#include "nearkey/upstream/touch_reporter.h"

#include <cstdint>
#include <memory>
#include <string>

namespace nearkey {

class NodeCoherence final {
public:
    enum class Role : uint8_t {
        OnlyServer,
        Undecided,  // it may be the seed of a cluster
        Seed,       // of a cluster: replies of the other nodes are stored
        Member,     // of a cluster
    };
    static constexpr uint16_t kSeedNumber = UINT16_MAX - 1;
    struct Place {
        Role role;
        uint16_t number;  // of the node in a cluster
    };
    // All outlive it.
    NodeCoherence(ConnectionContext& context, NodeConnections& connections,
                  const ServerCatalog& catalog, const Suspicion& suspicion, const Place& place);
    uint16_t number() const { return place_.number; }
    // Between these two, before anybody has read, it is found out whether the node is one of a
    // cluster, whose seed it is then.
    void leave_undecided() { place_.role = Role::Undecided; }
    void decide(bool is_seed);
    // A member owns this slot, and each beat asks for a proof of it; -1: it owns none.
    void prove_by_slot(int slot);

    // Before the start: other connections than the node's store into the same near cache, and these
    // are the proofs of all. `is_of_loops`: they are those of other event loops, too, and so may
    // have read any key.
    void share_cache(ProofRounds& all_proofs, bool is_of_loops = true) {
        all_proofs_ = &all_proofs;
        is_of_loops_ = is_of_loops;
    }
    // Proves that every change before now is known to the near cache, or that its source is
    // unproven anyway.
    ProofRounds& proofs() { return all_proofs_ != nullptr ? *all_proofs_ : own_proofs_; }
    // The proofs of replies that came over the connections here.
    ProofRounds& own_proofs() { return own_proofs_; }
    // A round of proofs asks its connections, or tells it of its end.
    bool is_proving() const {
        return own_proofs_.is_under_way() || (auditor_ != nullptr && auditor_->is_proving());
    }
    Sources& sources() { return sources_; }
    // REQUIRES: there is a near cache.
    TouchReporter& touch() { return *touch_; }
    Auditor& auditor() { return *auditor_; }

    // True if a reply can arrive before the invalidation of a change that it already reflects.
    bool may_overtake(Protocol protocol) const {
        return place_.role == Role::Seed || protocol == Protocol::Resp2 ||
               connections_.shared().is_crowded() || sources_.is_broadcast() ||
               connections_.has_former() || is_of_loops_;
    }
    // A reply that was asked for at `sent_ms` and shows fields of a hash is not served from then
    // on.
    uint64_t fields_deadline_ms(uint64_t sent_ms) const {
        return stats_.fields_expire() ? sent_ms + max_staleness_ms_ : UINT64_MAX;
    }
    // Every SWAPDB before this time is known, or none ever will be.
    uint64_t swapdb_known_ms() const { return stats_.swapdb_known_ms(); }
    // The connection whose source it is, in words.
    std::string describe(NearCache::SourceId source) const;

    // The longest time for which a change may stay unseen.
    void bound_staleness(uint64_t max_staleness_ms);
    // Beats that follow each other no slower keep that bound.
    uint64_t beat_interval_ms() const { return beat_interval_ms_; }
    void start();
    // The server has told its mode at HELLO.
    void note_mode(bool is_cluster);
    void note_ready(Connection& connection);
    // A member has become a replica: what it has told is not believed, until it is none again.
    void leave_replica();
    void note_lost(const Connection& connection);
    // The commands of the server are known, so that its statistics can be read.
    void note_commands();
    // A PING has been answered by a server that runs reads.
    void note_heartbeat();
    // Another server is asked from now on; start() is next.
    void leave_former(Former former);
    void tick();
    // A tick will have something to do.
    bool wants_ticks() const { return own_proofs_.is_under_way(); }
    void beat();
    void apply_options();
    void shrink() { own_proofs_.shrink(); }
    NodeGauges gauges() const;
    // Its node ends.
    void stop() { own_proofs_.stop(); }

private:
    // Replies of its connections are stored.
    bool is_on() const { return context_.cache != nullptr && place_.role != Role::Seed; }

    ConnectionContext& context_;
    NodeConnections& connections_;
    ServerStats stats_;
    Sources sources_;
    SourceProofs own_proofs_;
    Place place_;
    ProofRounds* all_proofs_ = nullptr;  // null: own_proofs_ are all
    bool is_of_loops_ = false;
    uint64_t max_staleness_ms_ = 0;
    uint64_t beat_interval_ms_;
    std::unique_ptr<TouchReporter> touch_;  // null if there is no near cache
    std::unique_ptr<Auditor> auditor_;      // the same
};

}  // namespace nearkey
