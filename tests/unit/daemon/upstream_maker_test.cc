#include "nearkey/daemon/upstream_maker.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <string>
#include <vector>

namespace nearkey {
namespace {

struct Maker {
    UpstreamUrl url_of(const std::string& url, const std::vector<Endpoint>& seeds) const {
        Config config;
        config.upstream.url = url;
        config.server.workers = 2;
        const Workers::Targets targets = maker.make_targets(config, {}, seeds);
        REQUIRE(targets.size() == 2);
        return targets[1]->url;
    }

    Loop loop;
    Metrics metrics;
    Log log{open("/dev/null", O_WRONLY | O_CLOEXEC), LogLevel::Error, metrics};
    Environment environment;
    std::string told_password;
    UpstreamMaker maker{{.loop = loop,
                         .metrics = metrics,
                         .log = log,
                         .environment = environment,
                         .told_password = told_password,
                         .managed_path = {}}};
};

}  // namespace

TEST_CASE("upstream maker: each event loop has its seed, and the URL's own stay to be asked") {
    const Maker maker;
    const std::vector<Endpoint> seeds{{"a", 1}, {"b", 2}};
    for (const std::string url : {"valkey://first:7000", "valkey+cluster://first:7000"}) {
        CAPTURE(url);
        const UpstreamUrl made = maker.url_of(url, seeds);
        CHECK(made.kind == UpstreamUrl::Kind::Cluster);
        CHECK(made.endpoint() == seeds[1]);
        CHECK(made.seeds == std::vector<Endpoint>{{"first", 7000}});
    }
    const UpstreamUrl from_socket = maker.url_of("unix:///run/valkey.sock", seeds);
    CHECK(from_socket.kind == UpstreamUrl::Kind::Cluster);
    CHECK(from_socket.endpoint() == seeds[1]);
    CHECK(from_socket.path == "/run/valkey.sock");
}

TEST_CASE("upstream maker: without seeds, and where the socket is asked, it is the URL's") {
    const Maker maker;
    for (const std::string url : {"valkey://first:7000", "unix:///run/valkey.sock"}) {
        CAPTURE(url);
        const UpstreamUrl plain = maker.url_of(url, {});
        CHECK(plain.kind != UpstreamUrl::Kind::Cluster);
        CHECK(maker.url_of(url, {Endpoint{}, Endpoint{}}) == plain);
        CHECK(maker.url_of(url, {plain.endpoint(), plain.endpoint()}) == plain);
    }
}

}  // namespace nearkey
