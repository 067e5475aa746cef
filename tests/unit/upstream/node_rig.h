// A Node with a FakeValkey behind it, and with what it says of its health noted.
// Backoff is short and queueing patient, so that a slow machine changes no outcome.
#pragma once

#include "nearkey/upstream/node.h"

#include "../run_until.h"
#include "fake_valkey.h"

#include "collector.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>
#include <memory>
#include <string>
#include <vector>

namespace nearkey {

struct Waiter final : LeaseWaiter {
    void on_lease_possible() override { ++possible; }
    void on_lease_refused() override { ++refused; }
    size_t possible = 0;
    size_t refused = 0;
};

// What came of an upstream that was tried.
struct Trial final : TargetEvents {
    void on_target_proven() override { ++proven; }
    void on_target_refused(const std::string&) override { ++refused; }
    int proven = 0;
    int refused = 0;
};

struct NodeRig final : NodeEvents {
    NodeRig() {
        url.kind = UpstreamUrl::Kind::Unix;
        url.path = directory / "valkey";
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 5;
        options.queue_timeout_ms = 10'000;
    }
    ~NodeRig() {
        node.reset();
        ::close(null_fd);
    }
    void start() {
        node = std::make_unique<Node>(Node::Parts{loop, metrics, log, scratch, *this, cache.get()},
                                      options, std::make_unique<UpstreamTarget>(url, nullptr));
        node->start();
    }
    void make_ready() {
        start();
        REQUIRE(run_until(loop, [this] { return node->health().is_ready; }));
    }
    void send(Connection& connection, Collector& receiver, std::string_view line,
              RequestKind kind = RequestKind::Write) {
        connection.send({encoded(line), &receiver, 0, kind});
    }
    // Lets the loop turn until all work that is deferred is done.
    void settle() {
        int looks = 0;
        run_until(loop, [&] { return ++looks > 5; });
    }
    bool run_until_told(const Collector& receiver, size_t count) {
        return run_until(loop, [&] { return receiver.told.size() >= count; });
    }
    // With a near cache, whose sources are RESP3 connections; beats often.
    void make_ready_with_cache(uint64_t heartbeat_interval_ms = 10) {
        valkey.answers["CLIENT TRACKING ON OPTOUT"] = "+OK\r\n";
        options.heartbeat_interval_ms = heartbeat_interval_ms;
        cache = std::make_unique<NearCache>(near, metrics, 1);
        make_ready();
    }
    // A shared connection that is ready and tracked.
    Connection& tracked(int database) {
        Connection* connection = node->shared().acquire(Protocol::Resp3, database);
        Collector receiver;
        send(*connection, receiver, "ECHO x");
        REQUIRE(run_until_told(receiver, 1));
        REQUIRE(run_until(loop, [&] { return connection->tracking().is_on(); }));
        return *connection;
    }
    // Before it starts: so little silence is enough to suspect the server.
    void suspect_soon() {
        options.suspect_after_ms = 60;
        options.heartbeat_interval_ms = 10;
    }
    void freeze_until_suspect() {
        valkey.freeze();
        REQUIRE(run_until(loop, [this] { return metrics.upstream_suspects_total == 1; }));
    }
    // A lease that has answered a command: it is ready and owes nothing.
    Connection& used_lease(const std::string& line) {
        Connection* connection = lease(Protocol::Resp2, 0);
        REQUIRE(connection != nullptr);
        Collector receiver;
        send(*connection, receiver, line);
        REQUIRE(run_until_told(receiver, 1));
        CHECK(receiver.told.front() == "0 +" + line);
        return *connection;
    }
    Connection* lease(Protocol protocol, int database) {
        return node->leases().lease({protocol, database, identity}, waiter);
    }
    void on_credentials_refused() override { ++credentials_refused; }
    void on_commands_changed() override {}
    void on_demoted() override { ++demoted; }
    void on_health_changed(const UpstreamHealth& health) override {
        told.push_back(health.is_ready ? "ready" : health.reason);
    }

    TemporaryDirectory directory;
    Loop loop;
    FakeValkey valkey{loop, directory / "valkey"};
    Metrics metrics;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Log log{null_fd, LogLevel::Debug, metrics};
    std::vector<char> scratch = std::vector<char>(65536);
    UpstreamOptions options;
    UpstreamUrl url;
    size_t credentials_refused = 0;
    size_t demoted = 0;
    NearCacheOptions near;
    std::unique_ptr<NearCache> cache;
    std::unique_ptr<Node> node;
    std::vector<std::string> told;
    ClientIdentity identity;
    Waiter waiter;
};

}  // namespace nearkey
