#include "nearkey/daemon/upstream_maker.h"

#include "nearkey/daemon/config_secrets.h"

#include <utility>
#include <variant>

namespace nearkey {

Workers::Targets UpstreamMaker::make_targets(const Config& config, const Endpoint& primary,
                                             const std::vector<Endpoint>& seeds) const {
    Workers::Targets targets;
    while (targets.size() < config.server.workers) {
        const size_t number = targets.size();
        targets.push_back(
            make_target(config, primary, number < seeds.size() ? seeds[number] : Endpoint{}));
    }
    return targets;
}

std::unique_ptr<UpstreamTarget> UpstreamMaker::make_target(const Config& config,
                                                           const Endpoint& primary,
                                                           const Endpoint& seed) const {
    UpstreamUrl url = read_upstream(config, parts_.environment, parts_.told_password);
    if (is_managed()) {
        url.kind = UpstreamUrl::Kind::Unix;
        url.path = parts_.managed_path;
    }
    if (url.kind == UpstreamUrl::Kind::Sentinel) {
        url.host = primary.host;
        url.port = primary.port;
    }
    // Without a host it is the node whose socket the URL names.
    if (!seed.host.empty() && seed != url.endpoint()) {
        url.make_seed();
        url.kind = UpstreamUrl::Kind::Cluster;
        url.host = seed.host;
        url.port = seed.port;
    }
    std::unique_ptr<TlsContext> tls;
    if (url.tls) tls = std::make_unique<TlsContext>(config.upstream, url.host);
    return std::make_unique<UpstreamTarget>(std::move(url), std::move(tls));
}

std::unique_ptr<SentinelWatch> UpstreamMaker::make_watch(const Config& config) const {
    UpstreamUrl url = std::get<UpstreamUrl>(parse_url(config.upstream.url));
    if (url.kind != UpstreamUrl::Kind::Sentinel) return nullptr;
    return std::make_unique<SentinelWatch>(
        SentinelWatch::Parts{
            parts_.loop, parts_.metrics, parts_.log, config.upstream,
            [options = config.sentinel] { return read_sentinel_credentials(options); }},
        std::move(url));
}

}  // namespace nearkey
