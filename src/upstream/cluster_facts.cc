#include "nearkey/upstream/cluster_facts.h"

#include "nearkey/upstream/cluster.h"

#include <fmt/format.h>

#include <algorithm>

namespace nearkey {

namespace {
constexpr double kMsPerSecond = 1000;

NodeFacts facts_of(Node& node, uint64_t now_ms) {
    const UpstreamHealth& health = node.health();
    const uint64_t since_ms = now_ms - std::min(now_ms, health.since_ms);
    NodeFacts facts;
    facts.state = health.is_ready ? "ready" : health.reason;
    facts.since_seconds = static_cast<double>(since_ms) / kMsPerSecond;
    node.connections().for_each([&](Connection& connection) {
        facts.connections += connection.is_ready() ? 1 : 0;
        facts.in_flight += connection.in_flight().size();
        facts.waiting += connection.pipeline().waiting().size();
    });
    return facts;
}

bool is_away(const Cluster::Member& member) {
    return member.slots > 0 && !member.node->health().is_ready;
}
}  // namespace

ClusterFacts facts_of(const Cluster& cluster) {
    ClusterFacts facts{.slots_unserved = kSlots};
    for (const auto& member : cluster.members()) {
        if (member == nullptr || member->slots == 0) continue;
        ++facts.nodes;
        if (is_away(*member)) {
            ++facts.nodes_away;
        } else {
            facts.slots_unserved -= member->slots;
        }
    }
    return facts;
}

std::string degraded_of(const Cluster& cluster, const ClusterFacts& all) {
    if (all.slots_unserved == 0) return {};
    const std::string words = fmt::format("{} slots are not served", all.slots_unserved);
    const auto away =
        std::find_if(cluster.members().begin(), cluster.members().end(),
                     [](const auto& member) { return member != nullptr && is_away(*member); });
    if (away == cluster.members().end()) return words;
    const std::string address = to_text((*away)->endpoint);
    const std::string& reason = (*away)->node->health().reason;
    const bool names_it = reason.find(address) != std::string::npos;
    return fmt::format("{}, {} of {} nodes away: {}{}", words, all.nodes_away, all.nodes,
                       names_it ? "" : address + ": ", reason);
}

std::vector<Endpoint> serving_of(const Cluster& cluster) {
    std::vector<Endpoint> endpoints;
    for (const auto& member : cluster.members()) {
        const bool serves = member != nullptr && member->node->health().is_ready;
        if (serves) endpoints.push_back(member->endpoint);
    }
    return endpoints;
}

std::vector<NodeFacts> nodes_of(const Cluster& cluster, uint64_t now_ms) {
    std::vector<NodeFacts> all;
    for (const auto& member : cluster.members()) {
        if (member == nullptr) continue;
        all.push_back(facts_of(*member->node, now_ms));
        NodeFacts& facts = all.back();
        facts.id = member->id;
        facts.address = to_text(member->endpoint);
        facts.slots = member->slots;
    }
    if (cluster.replicas == nullptr) return all;
    cluster.replicas->for_each_fact([&](const Replicas::Facts& replica) {
        all.push_back(facts_of(replica.node, now_ms));
        NodeFacts& facts = all.back();
        facts.id = replica.id;
        facts.address = to_text(replica.endpoint);
        facts.is_replica = true;
        if (replica.lag_ms != UINT64_MAX)
            facts.lag_seconds = static_cast<double>(replica.lag_ms) / kMsPerSecond;
    });
    return all;
}

void set_gauges(const Cluster& cluster, const NodeGauges& seed, Metrics& metrics) {
    NodeGauges all = seed;
    bool all_track = true;
    size_t nodes = 0;
    size_t ready = 0;
    for (const auto& member : cluster.members()) {
        if (member == nullptr) continue;
        ++nodes;
        const NodeGauges one = member->node->coherence().gauges();
        all.dedicated_idle += one.dedicated_idle;
        all.lease_ms = std::max(all.lease_ms, one.lease_ms);
        all.is_touching = all.is_touching || one.is_touching;
        const bool ends_first =
            all.certificate_end_s == 0 || one.certificate_end_s < all.certificate_end_s;
        if (one.certificate_end_s != 0 && ends_first) all.certificate_end_s = one.certificate_end_s;
        // One that is away tells of nothing, and nothing of it is served.
        if (!member->node->health().is_ready) continue;
        ++ready;
        all_track = all_track && one.is_tracking;
    }
    metrics.upstream_dedicated_idle = all.dedicated_idle;
    metrics.upstream_dedicated_max = seed.dedicated_max * std::max<size_t>(nodes, 1);
    metrics.near_cache_tracking = all_track && ready > 0 ? 1 : 0;
    metrics.near_cache_lease_ms = all.lease_ms;
    metrics.near_cache_touching = all.is_touching ? 1 : 0;
    metrics.tls_server_certificate_expires_seconds = all.certificate_end_s;
}

}  // namespace nearkey
