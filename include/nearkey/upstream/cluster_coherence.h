// Keeps the near cache true to the nodes of a cluster, where no node tells of what another one
// does:
//   - What is stored of a slot is void when it comes to another owner, and where its owner has sent
//     one of its keys on. Who sees newer there sees nothing older here.
//   - Each node proves that it owns a slot with each beat. One that has lost the majority, or was
//     replaced while it was frozen, answers PING for ever.
//   - That a key is not there is believed for max_staleness_ms at most (Ledger::end_fill).
//   - A proof asks the connections of all nodes.
// Owned by Cluster. Without a near cache the nodes only prove what they own.
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/upstream/cluster_proofs.h"

#include <cstdint>
#include <span>
#include <vector>

namespace nearkey {

class Node;

class ClusterCoherence {
public:
    // Both outlive it. `cache`: null: there is none.
    ClusterCoherence(Cluster& cluster, NearCache* cache) : cache_(cache), proofs_(cluster) {}

    // Before the start: other event loops store into the same near cache, and these are the proofs
    // of all.
    void share_cache(ProofRounds& all_proofs) { all_proofs_ = &all_proofs; }
    // Proves what the nodes of this event loop have been told.
    ProofRounds& proofs() { return proofs_; }
    // Before a node starts.
    void begin(Node& node);
    // Slots have another owner, or the owner of one has sent a key of it on.
    void void_slots(std::span<const uint16_t> slots);
    // Each node that proves by a slot that is another's now, or by none, is given one of its own.
    // `owners`: the number of each slot's node; `nodes`: by their numbers, null: it is gone.
    void choose_proofs(std::span<const uint16_t> owners, const std::vector<Node*>& nodes);

private:
    NearCache* const cache_;
    ClusterProofs proofs_;
    ProofRounds* all_proofs_ = nullptr;  // null: there is one event loop
    std::vector<int> proof_slots_;       // by the numbers of the nodes; -1: none
};

}  // namespace nearkey
