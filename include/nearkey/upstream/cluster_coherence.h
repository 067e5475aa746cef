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
#include "nearkey/loop/loop.h"
#include "nearkey/resp/slot.h"
#include "nearkey/upstream/cluster_proofs.h"

#include <bitset>
#include <cstdint>
#include <span>
#include <vector>

namespace nearkey {

class Node;

class ClusterCoherence {
public:
    // All outlive it. `cache`: null: there is none.
    ClusterCoherence(Cluster& cluster, Loop& loop, NearCache* cache)
        : cache_(cache), proofs_(cluster), void_hook_(loop, *this) {}

    // Before the start: other event loops store into the same near cache, and these are the proofs
    // of all.
    void share_cache(ProofRounds& all_proofs) { all_proofs_ = &all_proofs; }
    // Proves what the nodes of this event loop have been told.
    ProofRounds& proofs() { return proofs_; }
    // Before a node starts.
    void begin(Node& node);
    // Slots have another owner.
    void void_slots(std::span<const uint16_t> slots);
    // The same of one whose owner has sent a key of it on, or which a redirect names: once a turn,
    // for thousands may come in one, and each walks over all fills. No reply to what was sent on
    // comes before the next turn.
    void void_soon(uint16_t slot);
    // Each node that proves by a slot that is another's now, or by none, is given one of its own.
    // `owners`: the number of each slot's node; `nodes`: by their numbers, null: it is gone.
    void choose_proofs(std::span<const uint16_t> owners, const std::vector<Node*>& nodes);

private:
    struct VoidHook final : Deferred {
        VoidHook(Loop& loop, ClusterCoherence& owner)
            : Deferred(loop, Phase::Upstream), of(owner) {}
        void before_sleep() override;
        ClusterCoherence& of;
    };

    NearCache* const cache_;
    ClusterProofs proofs_;
    VoidHook void_hook_;
    std::vector<uint16_t> to_void_;
    std::bitset<kSlots> is_to_void_;
    ProofRounds* all_proofs_ = nullptr;  // null: there is one event loop
    std::vector<int> proof_slots_;       // by the numbers of the nodes; -1: none
};

}  // namespace nearkey
