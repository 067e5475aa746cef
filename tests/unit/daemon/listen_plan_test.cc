// Where we listen, by the configuration and by what was opened for us.
#include "nearkey/daemon/listen_plan.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <unistd.h>
#include <algorithm>
#include <memory>

namespace nearkey::listen_plan_test {
namespace {

constexpr int kFirst = 710;

struct Opened {
    explicit Opened(const std::vector<std::string>& paths) {
        for (const std::string& path : paths)
            sockets.push_back(std::make_unique<ListenSocket>(path, 8, SocketFile{0600}));
    }
    InheritedSockets inherit(const std::string& names) const {
        for (size_t i = 0; i < sockets.size(); ++i)
            REQUIRE(dup2(sockets[i]->fd(), kFirst + static_cast<int>(i)) > 0);
        return InheritedSockets({.fds = std::to_string(sockets.size()),
                                 .pid = std::to_string(getpid()),
                                 .names = names,
                                 .first_fd = kFirst});
    }
    std::vector<std::unique_ptr<ListenSocket>> sockets;
};

std::vector<std::string> texts(const ListenPlan& plan) {
    std::vector<std::string> all;
    for (const Listener& listener : plan.listeners)
        all.push_back(to_text(listener.address));
    return all;
}

const Environment kEnvironment{{{"RUNTIME_DIRECTORY", "/run/nearkey"}}, 1000};

TEST_CASE("listen plan: with nothing inherited it is the configuration's") {
    const ListenPlan plan = listen_plan({}, kEnvironment, {});
    CHECK(texts(plan) == std::vector<std::string>{"/run/nearkey/nearkey.sock"});
    CHECK(to_text(plan.admin) == "/run/nearkey/admin.sock");
}

TEST_CASE("listen plan: an inherited socket takes the place of the default path") {
    const TemporaryDirectory directory;
    const Opened opened({directory / "app.sock"});
    const InheritedSockets inherited = opened.inherit("app");
    const ListenPlan plan = listen_plan({}, kEnvironment, foreign_addresses(inherited));
    CHECK(texts(plan) == std::vector<std::string>{directory / "app.sock"});
    CHECK(to_text(plan.admin) == directory / "admin.sock");
}

TEST_CASE("listen plan: beside configured listeners it is one more, unless it is one of them") {
    const TemporaryDirectory directory;
    const Opened opened({directory / "app.sock", directory / "b.sock"});
    const InheritedSockets inherited = opened.inherit("app:app");
    Config config;
    config.listeners.emplace_back().address = directory / "b.sock";
    config.listeners.back().near_cache = false;
    const ListenPlan plan = listen_plan(config, kEnvironment, foreign_addresses(inherited));
    CHECK(texts(plan) == std::vector<std::string>{directory / "app.sock", directory / "b.sock"});
    CHECK(plan.listeners[0].options.near_cache);
    CHECK_FALSE(plan.listeners[1].options.near_cache);
}

TEST_CASE("listen plan: the admin server's is known by its name or its address") {
    const TemporaryDirectory directory;
    const Opened opened({directory / "app.sock", directory / "admin.sock"});
    for (const std::string names : {"a:b", "a:admin"}) {
        CAPTURE(names);
        const InheritedSockets inherited = opened.inherit(names);
        const ListenPlan plan = listen_plan({}, kEnvironment, foreign_addresses(inherited));
        CHECK(texts(plan) == std::vector<std::string>{directory / "app.sock"});
        CHECK(to_text(plan.admin) == directory / "admin.sock");
    }
}

TEST_CASE(
    "listen plan: an inherited socket named metrics is for other hosts, whatever is configured") {
    Config config;
    config.server.metrics = "0.0.0.0:9121";
    CHECK(to_text(*listen_plan(config, kEnvironment, {}).metrics) == "0.0.0.0:9121");
    CHECK_FALSE(listen_plan({}, kEnvironment, {}).metrics);
    const auto socket = ListenSocket::for_network("[::]:0", 8);
    REQUIRE(dup2(socket->fd(), kFirst) == kFirst);
    const InheritedSockets inherited(
        {.fds = "1", .pid = std::to_string(getpid()), .names = "metrics", .first_fd = kFirst});
    const ListenPlan plan = listen_plan(config, kEnvironment, foreign_addresses(inherited));
    CHECK(to_text(*plan.metrics) == socket->address());
    CHECK(texts(plan) == std::vector<std::string>{"/run/nearkey/nearkey.sock"});
}

}  // namespace
}  // namespace nearkey::listen_plan_test
