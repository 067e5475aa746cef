#include "nearkey/upstream/cluster_seed.h"

namespace nearkey {

namespace {
constexpr uint64_t kPatienceMs = 1000;
}  // namespace

void ClusterSeed::start(Node& node) {
    node_ = &node;
    has_socket_ = node.target().url.kind == UpstreamUrl::Kind::Unix;
}

void ClusterSeed::watch(const std::vector<Endpoint>& serving) {
    absence_.note(node_->shared().primary().is_ready(), loop_.now_ms());
    if (absence_.lasts(kPatienceMs, loop_.now_ms())) turn(serving);
}

void ClusterSeed::turn(std::vector<Endpoint> others) {
    const std::vector<Endpoint>& named = node_->target().url.seeds;
    others.insert(others.end(), named.begin(), named.end());
    if (has_socket_) others.push_back({});
    if (others.empty()) return;
    const Endpoint& next = others[next_++ % others.size()];
    absence_.begin_anew();
    if (next == node_->target().url.endpoint()) return;
    auto target = make_target_(node_->target(), next);
    if (target == nullptr) return;
    target->url.kind = next.host.empty() ? UpstreamUrl::Kind::Unix : UpstreamUrl::Kind::Cluster;
    log_.info("cluster_seed", {{"upstream", redacted(target->url)}});
    node_->topology().turn_to(std::move(target));
}

}  // namespace nearkey
