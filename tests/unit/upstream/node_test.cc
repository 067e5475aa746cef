// Which connection carries what, when the node dials, and what it says of Valkey's health.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::node_test {
namespace {

TEST_CASE("node: a server that says too little of its commands is refused") {
    NodeRig rig;
    rig.valkey.answers["COMMAND"] = "*1\r\n*3\r\n+get\r\n:2\r\n*1\r\n+readonly\r\n";
    rig.start();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("COMMAND") == 1; }));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    CHECK_FALSE(rig.node->health().is_ready);
}

TEST_CASE("node: it is ready when the handshake is done and the commands are known") {
    NodeRig rig;
    rig.valkey.answers["COMMAND"] = FakeValkey::kSilent;
    rig.start();
    CHECK_FALSE(rig.node->health().is_ready);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("COMMAND") == 1; }));
    CHECK_FALSE(rig.node->health().is_ready);
    rig.valkey.send(0,
                    "*1\r\n*10\r\n+get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"
                    "*0\r\n*0\r\n*0\r\n*0\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.node->health().is_ready; }));
    CHECK(rig.told == std::vector<std::string>{"ready"});
    CHECK(rig.node->health().is_ready);
    CHECK(rig.node->catalog().commands().size() > 0);
    CHECK(rig.node->catalog().hello().find("server")->text == "valkey");
    CHECK(rig.node->catalog().is_known_database(0));
    CHECK_FALSE(rig.node->catalog().is_known_database(1));
}

TEST_CASE("node: sessions of one protocol and database share upstream.connections") {
    NodeRig rig;
    rig.options.connections = 2;
    rig.make_ready();
    Connection* first = rig.node->shared().acquire(Protocol::Resp2, 0);
    Connection* second = rig.node->shared().acquire(Protocol::Resp2, 0);
    Connection* third = rig.node->shared().acquire(Protocol::Resp2, 0);
    CHECK(first != second);
    CHECK((third == first || third == second));
    CHECK(rig.node->shared().acquire(Protocol::Resp3, 0) !=
          rig.node->shared().acquire(Protocol::Resp2, 5));
    rig.node->shared().release(*first);
    CHECK(rig.node->shared().acquire(Protocol::Resp2, 0) != nullptr);
}

TEST_CASE("node: replies in RESP3 may overtake news where a group has more than one connection") {
    NodeRig rig;
    rig.options.connections = 2;
    rig.make_ready();
    CHECK(rig.node->shared().acquire(Protocol::Resp3, 0) != nullptr);
    CHECK_FALSE(rig.node->coherence().may_overtake(Protocol::Resp3));
    CHECK(rig.node->coherence().may_overtake(Protocol::Resp2));
    CHECK(rig.node->shared().acquire(Protocol::Resp3, 0) != nullptr);
    CHECK(rig.node->coherence().may_overtake(Protocol::Resp3));
}

TEST_CASE("node: connections_max is a limit for groups, not for sessions") {
    NodeRig rig;
    rig.options.connections_max = 2;
    rig.options.connections = 2;
    rig.make_ready();
    Connection* shared = rig.node->shared().acquire(Protocol::Resp2, 1);
    REQUIRE(shared != nullptr);
    CHECK(rig.node->shared().acquire(Protocol::Resp2, 1) == shared);
    CHECK(rig.node->shared().acquire(Protocol::Resp3, 0) == nullptr);
    CHECK(rig.metrics.upstream_shared_refused_total == 1);
    CHECK(rig.node->shared().acquire(Protocol::Resp2, 0) != nullptr);
}

TEST_CASE("node: a lease given back clean is reused, by the same protocol and database only") {
    NodeRig rig;
    rig.make_ready();
    Connection& lease = rig.used_lease("EVAL x 0");
    rig.node->leases().give_back(lease, LeaseEnd::Clean);
    CHECK(rig.node->leases().leased().size() == 0);
    Connection* other = rig.lease(Protocol::Resp3, 0);
    CHECK(other != &lease);
    CHECK(rig.lease(Protocol::Resp2, 0) == &lease);
    CHECK(rig.node->leases().leased().size() == 2);
    CHECK(rig.metrics.upstream_dedicated_leased == 2);
}

TEST_CASE("node: a lease given back dirty is closed") {
    NodeRig rig;
    rig.make_ready();
    Connection& lease = rig.used_lease("EVAL x 0");
    const size_t peer = rig.valkey.peer_of("EVAL x 0");
    rig.node->leases().give_back(lease, LeaseEnd::Dirty);
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
    rig.used_lease("EVAL y 0");
    CHECK(rig.valkey.peer_of("EVAL y 0") != peer);
}

TEST_CASE("node: a lease that still owes a reply is closed, however it is given back") {
    NodeRig rig;
    rig.make_ready();
    rig.valkey.answers["EVAL slow 0"] = FakeValkey::kSilent;
    Connection* lease = rig.lease(Protocol::Resp2, 0);
    Collector receiver;
    rig.send(*lease, receiver, "EVAL slow 0");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("EVAL slow 0") == 1; }));
    lease->forget(receiver);
    rig.node->leases().give_back(*lease, LeaseEnd::Clean);
    const size_t peer = rig.valkey.peer_of("EVAL slow 0");
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
    CHECK(receiver.told.empty());
}

TEST_CASE("node: of the leases given back at most dedicated_idle_max are kept") {
    NodeRig rig;
    rig.options.dedicated_idle_max = 1;
    rig.make_ready();
    Connection& first = rig.used_lease("EVAL x 0");
    Connection& second = rig.used_lease("EVAL y 0");
    rig.node->leases().give_back(first, LeaseEnd::Clean);
    rig.node->leases().give_back(second, LeaseEnd::Clean);
    CHECK(run_until(rig.loop, [&] { return rig.valkey.open_count() == 2; }));
    CHECK(rig.valkey.is_open(rig.valkey.peer_of("EVAL y 0")));
}

TEST_CASE("node: at most dedicated_max are leased at a time") {
    NodeRig rig;
    rig.options.dedicated_max = 2;
    rig.make_ready();
    Connection& first = rig.used_lease("EVAL x 0");
    rig.used_lease("EVAL y 0");
    CHECK(rig.lease(Protocol::Resp2, 0) == nullptr);
    CHECK(rig.metrics.upstream_dedicated_waits_total == 1);
    rig.node->leases().give_back(first, LeaseEnd::Clean);
    CHECK(rig.waiter.possible == 1);
    // The place is kept for the one who waited.
    Waiter newcomer;
    CHECK(rig.node->leases().lease({Protocol::Resp2, 0, rig.identity}, newcomer) == nullptr);
    CHECK(rig.lease(Protocol::Resp2, 0) == &first);
    CHECK(rig.lease(Protocol::Resp2, 0) == nullptr);
    rig.node->leases().stop_waiting(newcomer);
}

TEST_CASE("node: who waits too long for a lease is told so") {
    NodeRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 30;
    rig.make_ready();
    rig.used_lease("EVAL x 0");
    CHECK(rig.lease(Protocol::Resp2, 0) == nullptr);
    CHECK(run_until(rig.loop, [&] { return rig.waiter.refused == 1; }));
    CHECK(rig.metrics.upstream_dedicated_refused_total == 1);
    CHECK(rig.waiter.possible == 0);
}

TEST_CASE("node: a waiter that is gone passes its place on") {
    NodeRig rig;
    rig.options.dedicated_max = 1;
    rig.make_ready();
    Connection& first = rig.used_lease("EVAL x 0");
    Waiter gone;
    CHECK(rig.node->leases().lease({Protocol::Resp2, 0, rig.identity}, gone) == nullptr);
    CHECK(rig.lease(Protocol::Resp2, 0) == nullptr);
    rig.node->leases().give_back(first, LeaseEnd::Clean);
    CHECK(gone.possible == 1);
    CHECK(rig.waiter.possible == 0);
    rig.node->leases().stop_waiting(gone);
    CHECK(rig.waiter.possible == 1);
    CHECK(rig.lease(Protocol::Resp2, 0) != nullptr);
}

TEST_CASE("node: reusing a kept lease does not lead beyond dedicated_max") {
    NodeRig rig;
    rig.options.dedicated_max = 1;
    rig.make_ready();
    rig.node->leases().give_back(rig.used_lease("EVAL x 0"), LeaseEnd::Clean);
    REQUIRE(rig.lease(Protocol::Resp3, 0) != nullptr);
    CHECK(rig.lease(Protocol::Resp2, 0) == nullptr);
}

TEST_CASE("node: a SELECT that is refused closes that group only, and the next use asks again") {
    NodeRig rig;
    rig.valkey.answers["SELECT 99"] = "-ERR DB index is out of range\r\n";
    rig.make_ready();
    Connection* group = rig.node->shared().acquire(Protocol::Resp2, 99);
    Collector receiver;
    rig.send(*group, receiver, "SET a 1");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.last_error.ends_with("ERR DB index is out of range"));
    CHECK(group->state() == ConnectionState::Closed);
    CHECK(rig.node->health().is_ready);
    CHECK_FALSE(rig.node->catalog().is_known_database(99));
    Connection* again = rig.node->shared().acquire(Protocol::Resp2, 99);
    CHECK(again != group);
    rig.node->shared().release(*group);
    rig.valkey.answers.clear();
    rig.send(*again, receiver, "SET b 1");
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told.back() == "0 +SET b 1");
    CHECK(rig.node->catalog().is_known_database(99));
}

TEST_CASE("node: a shared connection that nobody uses is closed, the primary is not") {
    NodeRig rig;
    rig.options.idle_timeout_ms = 30;
    rig.make_ready();
    Connection* shared = rig.node->shared().acquire(Protocol::Resp2, 5);
    Collector receiver;
    rig.send(*shared, receiver, "GET a");
    REQUIRE(rig.run_until_told(receiver, 1));
    rig.node->shared().release(*shared);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.open_count() == 1; }));
    CHECK(rig.valkey.is_open(0));
    CHECK(rig.metrics.upstream_connections == 1);
}

TEST_CASE("node: the command table is asked for again at most once a second") {
    NodeRig rig;
    rig.make_ready();
    for (int i = 0; i < 10; ++i)
        rig.node->refresh_commands();
    Connection& primary = *rig.node->shared().acquire(Protocol::Resp2, 0);
    Collector receiver;
    rig.send(primary, receiver, "GET a");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(rig.valkey.times_asked("COMMAND") == 1);
}

TEST_CASE("node: requests that are too old fail within a tick, sent or waiting") {
    NodeRig rig;
    rig.options.request_timeout_ms = 30;
    rig.options.queue_timeout_ms = 30;
    rig.make_ready();
    rig.valkey.answers["SET a 1"] = FakeValkey::kSilent;
    Connection& primary = *rig.node->shared().acquire(Protocol::Resp2, 0);
    Collector receiver;
    rig.send(primary, receiver, "SET a 1");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told.back() == "0 failed UPSTREAMTIMEOUT");
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !primary.is_ready(); }));
    rig.send(primary, receiver, "SET b 1");
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told.back() == "0 failed UPSTREAMDOWN");
}

TEST_CASE("node: a server that does not tell its commands is not ready, and its words are why") {
    NodeRig rig;
    rig.valkey.answers["COMMAND"] = "-NOPERM no permissions to run 'command'\r\n";
    rig.start();
    REQUIRE(run_until(rig.loop, [&] {
        return rig.node->health().reason.find("NOPERM no permissions") != std::string::npos;
    }));
    CHECK_FALSE(rig.node->health().is_ready);
}

TEST_CASE("node: a lease that is kept is listed as idle") {
    NodeRig rig;
    rig.make_ready();
    const auto has_kind = [&](std::string_view kind) {
        const ConnectionList list = rig.node->connections().list(10);
        CHECK(list.total == 2);
        return std::any_of(list.connections.begin(), list.connections.end(),
                           [&](const ConnectionFacts& facts) { return facts.kind == kind; });
    };
    Connection& lease = rig.used_lease("EVAL x 0");
    CHECK(has_kind("dedicated"));
    CHECK_FALSE(has_kind("idle"));
    rig.node->leases().give_back(lease, LeaseEnd::Clean);
    CHECK(has_kind("idle"));
    CHECK_FALSE(has_kind("dedicated"));
    CHECK(rig.node->connections().list(1).connections.size() == 1);
    CHECK(rig.node->connections().list(1).total == 2);
}

TEST_CASE("node: what a busy server does not track is tracked when it is no longer busy") {
    NodeRig rig;
    rig.make_ready_with_cache();
    rig.valkey.answers["CLIENT TRACKING ON OPTOUT"] = "-BUSY running a script\r\n";
    Connection* connection = rig.node->shared().acquire(Protocol::Resp3, 0);
    Collector receiver;
    rig.send(*connection, receiver, "ECHO x");
    REQUIRE(rig.run_until_told(receiver, 1));
    REQUIRE(run_until(rig.loop,
                      [&] { return rig.valkey.times_asked("CLIENT TRACKING ON OPTOUT") >= 1; }));
    CHECK(!connection->tracking().is_on());
    rig.valkey.answers["CLIENT TRACKING ON OPTOUT"] = "+OK\r\n";
    CHECK(run_until(rig.loop, [&] { return connection->tracking().is_on(); }));
    CHECK(rig.metrics.near_cache_tracking == 1);
}

TEST_CASE("node: without a near cache a reload leaves heartbeats as far apart as they were") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 60'000;
    rig.make_ready();
    rig.node->apply_options();
    const uint64_t until_ms = rig.loop.now_ms() + 50;
    run_until(rig.loop, [&] { return rig.loop.now_ms() >= until_ms; });
    CHECK(rig.metrics.heartbeats_total == 0);
}

}  // namespace
}  // namespace nearkey::node_test
