#include "nearkey/upstream/cluster_proofs.h"

#include "nearkey/upstream/cluster.h"

namespace nearkey {

void ClusterProofs::ask() {
    cluster_.for_each([this](Node& node) {
        owe();
        node.coherence().own_proofs().prove(*this);
    });
}

}  // namespace nearkey
