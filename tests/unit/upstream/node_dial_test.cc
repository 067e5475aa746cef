// When the node dials, how often, and what it says of Valkey meanwhile.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::node_dial_test {
namespace {

TEST_CASE("node: after a failure one connection at a time proves the server") {
    NodeRig rig;
    rig.valkey.stop_listening();
    rig.start();
    std::vector<Connection*> others;
    Collector receiver;
    for (const int database : {1, 2, 3, 4}) {
        others.push_back(rig.node->shared().acquire(Protocol::Resp2, database));
        rig.send(*others.back(), receiver, "INCR a");
    }
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_dial_failures_total > 3; }));
    rig.valkey.answers["HELLO 2"] = "-ERR max number of clients reached\r\n";
    rig.valkey.listen();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.peer_count() >= 10; }));
    CHECK(rig.valkey.open_count_max() == 1);
    rig.valkey.answers.clear();
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_connections == 5; }));
    CHECK(rig.node->health().is_ready);
}

TEST_CASE("node: connections that are lost together come back one first, then the others") {
    NodeRig rig;
    rig.make_ready();
    Collector receiver;
    for (const int database : {1, 2, 3}) {
        rig.send(*rig.node->shared().acquire(Protocol::Resp2, database), receiver, "INCR a");
    }
    REQUIRE(rig.run_until_told(receiver, 3));
    const size_t before = rig.valkey.peer_count();
    rig.valkey.answers["CLIENT SETNAME nearkey"] = FakeValkey::kSilent;
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] {
        return rig.valkey.peer_count() > before && rig.valkey.asked(before).size() >= 2;
    }));
    CHECK(rig.valkey.peer_count() == before + 1);
    CHECK_FALSE(rig.node->health().is_ready);
    rig.valkey.answers.clear();
    rig.valkey.send(before, "+OK\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_connections == 4; }));
    REQUIRE(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
    CHECK(rig.told.back() == "ready");
}

TEST_CASE("node: a server that is LOADING is asked, and is not ready until it has loaded") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 10;
    rig.valkey.answers["PING"] = "-LOADING not yet\r\n";
    rig.valkey.answers["GET a"] = "-LOADING not now\r\n";
    rig.start();
    Collector receiver;
    rig.send(*rig.node->shared().acquire(Protocol::Resp2, 0), receiver, "GET a", RequestKind::Read);
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told.back() == "0 -LOADING not now");
    REQUIRE(run_until(rig.loop, [&] { return rig.node->health().reason == "LOADING not yet"; }));
    CHECK_FALSE(rig.node->health().is_ready);
    rig.valkey.answers.clear();
    CHECK(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
}

TEST_CASE("node: MISCONF leaves a server ready, and is the reason that is shown") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 10;
    rig.options.unready_after_ms = 50;
    rig.make_ready();
    rig.valkey.answers["PING"] = "-MISCONF can't save\r\n";
    REQUIRE(run_until(rig.loop, [&] { return rig.node->health().reason == "MISCONF can't save"; }));
    CHECK(rig.node->health().is_ready);
    const uint64_t seen = rig.metrics.heartbeats_total;
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.heartbeats_total > seen + 10; }));
    CHECK(rig.node->health().is_ready);
    rig.valkey.answers.clear();
    CHECK(run_until(rig.loop, [&] { return rig.node->health().reason == "PONG"; }));
}

TEST_CASE("node: a server that is BUSY for long is not ready, and says why") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 10;
    rig.options.unready_after_ms = 50;
    rig.make_ready();
    rig.valkey.answers["PING"] = "-BUSY with a script\r\n";
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    CHECK(rig.node->health().reason == "BUSY with a script");
    CHECK(rig.metrics.upstream_connections == 1);
    rig.valkey.answers.clear();
    CHECK(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
}

TEST_CASE("node: a server that comes back may have fewer databases") {
    NodeRig rig;
    rig.make_ready();
    Collector receiver;
    rig.send(*rig.node->shared().acquire(Protocol::Resp2, 5), receiver, "INCR a");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(rig.node->catalog().is_known_database(5));
    rig.valkey.answers["SELECT 5"] = "-ERR DB index is out of range\r\n";
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    REQUIRE(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
    CHECK_FALSE(rig.node->catalog().is_known_database(5));
    CHECK(rig.node->catalog().is_known_database(0));
}

TEST_CASE("node: health falls with the last connection, with the reason, and comes back") {
    NodeRig rig;
    rig.make_ready();
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    CHECK(!rig.node->health().is_ready);
    CHECK_FALSE(rig.node->health().reason.empty());
    rig.valkey.listen();
    REQUIRE(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
    CHECK(rig.told.size() == 3);
    CHECK(rig.metrics.upstream_lost_socket_total == 1);
}

TEST_CASE("node: a server that answers no PING is not ready, and keeps its connections") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 10;
    rig.options.unready_after_ms = 50;
    rig.make_ready();
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    CHECK(rig.node->health().reason == "no PONG for 50 ms");
    CHECK(rig.metrics.upstream_connections == 1);
    rig.valkey.answers.clear();
    rig.valkey.send(0, "+PONG\r\n");
    CHECK(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
    CHECK(rig.valkey.is_open(0));
}

TEST_CASE("node: refused credentials are counted at each attempt, and it goes on trying") {
    NodeRig rig;
    rig.url.password = "wrong";
    rig.valkey.answers["HELLO 2 AUTH default wrong"] = "-WRONGPASS invalid\r\n";
    rig.start();
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.auth_failures_total >= 3; }));
    CHECK(rig.node->health().reason.starts_with("unix://:***@/"));
    CHECK(rig.node->health().reason.find(": WRONGPASS invalid; correct") != std::string::npos);
    rig.valkey.answers.clear();
    rig.valkey.answers["HELLO 2 AUTH default wrong"] = "*0\r\n";
    CHECK(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
}

// A server at its limit of clients takes no more connections while it serves those it has.
TEST_CASE("node: a connection that is refused beside a ready one is dialled with backoff") {
    NodeRig rig;
    rig.options.backoff_min_ms = 1000;
    rig.options.backoff_max_ms = 1000;
    rig.options.queue_timeout_ms = 60;
    rig.make_ready();
    rig.valkey.hangs_up = true;
    Connection* other = rig.node->shared().acquire(Protocol::Resp3, 0);
    Collector receiver;
    rig.send(*other, receiver, "INCR a");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told.back() == "0 failed UPSTREAMDOWN");
    CHECK(rig.metrics.upstream_dial_failures_total <= 2);
}

TEST_CASE("node: it ends in every state without a handle left") {
    for (const std::string step : {"", "HELLO 2", "PING", "COMMAND"}) {
        CAPTURE(step);
        NodeRig rig;
        rig.valkey.answers[step] = FakeValkey::kSilent;
        rig.start();
        Collector receiver;
        rig.send(*rig.node->shared().acquire(Protocol::Resp2, 0), receiver, "SET a 1");
        if (!step.empty()) {
            REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked(step) == 1; }));
        }
        rig.node.reset();
        CHECK(receiver.told.size() == 1);
        CHECK(rig.metrics.in_flight == 0);
        CHECK(rig.metrics.queued == 0);
    }
}

}  // namespace
}  // namespace nearkey::node_dial_test
