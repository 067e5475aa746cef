#include "nearkey/upstream/cluster_coherence.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/upstream/node.h"

#include <cstddef>

namespace nearkey {

void ClusterCoherence::begin(Node& node) {
    if (cache_ != nullptr) node.bound_staleness(cache_->options().max_staleness_ms);
    if (all_proofs_ != nullptr) node.coherence().share_cache(*all_proofs_);
    const size_t number = node.coherence().number();
    if (number < proof_slots_.size()) proof_slots_[number] = -1;
}

void ClusterCoherence::void_slots(std::span<const uint16_t> slots) {
    if (cache_ == nullptr || slots.empty() || is_broken(Rule::RedirectVoid)) return;
    cache_->void_slots(slots, slot_of, Loop::boot_ms());
}

void ClusterCoherence::void_soon(uint16_t slot) {
    if (cache_ == nullptr || is_to_void_[slot]) return;
    is_to_void_.set(slot);
    to_void_.push_back(slot);
    void_hook_.defer();
}

void ClusterCoherence::VoidHook::before_sleep() {
    of.void_slots(of.to_void_);
    of.to_void_.clear();
    of.is_to_void_.reset();
}

void ClusterCoherence::choose_proofs(std::span<const uint16_t> owners,
                                     const std::vector<Node*>& nodes) {
    std::vector<int> owned(nodes.size(), -1);
    for (size_t slot = 0; slot < owners.size(); ++slot) {
        if (owners[slot] < owned.size()) owned[owners[slot]] = static_cast<int>(slot);
    }
    proof_slots_.resize(nodes.size(), -1);
    for (size_t number = 0; number < nodes.size(); ++number) {
        int& slot = proof_slots_[number];
        const bool is_own = slot >= 0 && owners[static_cast<size_t>(slot)] == number;
        if (nodes[number] == nullptr || is_own) continue;
        slot = owned[number];
        nodes[number]->coherence().prove_by_slot(slot);
    }
}

}  // namespace nearkey
