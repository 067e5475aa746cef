// Proofs over all nodes of a cluster on one event loop: each round asks the connections of every
// node. A node that is lost is asked nothing, and one that does not answer holds up a round for a
// beat, once (SourceProofs).
// Owned by Cluster.
#pragma once

#include "nearkey/upstream/proof_rounds.h"

namespace nearkey {

class Cluster;

class ClusterProofs final : public ProofRounds, private ProofWaiter {
public:
    // It outlives this.
    explicit ClusterProofs(Cluster& cluster) : cluster_(cluster) {}

private:
    // ProofRounds
    void ask() override;
    bool ask_again() override { return false; }
    // ProofWaiter: a node has proven its part.
    void on_proven() override { on_answer(round()); }

    Cluster& cluster_;
};

}  // namespace nearkey
