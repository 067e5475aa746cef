// What an operator sees of a cluster: its nodes, what is not served, and gauges that are of all
// nodes. Read from a Cluster, which knows nothing of it; asked for by its Worker.
#pragma once

#include "nearkey/upstream/facts.h"
#include "nearkey/upstream/url.h"

#include <string>
#include <vector>

namespace nearkey {

class Cluster;
struct Metrics;

ClusterFacts facts_of(const Cluster& cluster);
// What is not served, and the first node that does not serve; one line. Empty: all is. `all`: its
// facts.
std::string degraded_of(const Cluster& cluster, const ClusterFacts& all);
// Where those are that serve.
std::vector<Endpoint> serving_of(const Cluster& cluster);
std::vector<NodeFacts> nodes_of(const Cluster& cluster, uint64_t now_ms);
// Sets those gauges that a node of a cluster does not set itself. `seed`: what it adds.
void set_gauges(const Cluster& cluster, const NodeGauges& seed, Metrics& metrics);

}  // namespace nearkey
