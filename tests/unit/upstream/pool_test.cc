// Which connection carries what, when the pool dials, and what it says of Valkey's health.
#include "nearkey/upstream/pool.h"

#include "pool_rig.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {
namespace {

using LeaseEnd = ConnectionPool::LeaseEnd;

TEST_CASE("pool: a server that says too little of its commands is refused") {
    PoolRig rig;
    rig.valkey.answers["COMMAND"] = "*1\r\n*3\r\n+get\r\n:2\r\n*1\r\n+readonly\r\n";
    rig.start();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("COMMAND") == 1; }));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    CHECK_FALSE(rig.pool->health().is_ready);
}

TEST_CASE("pool: it is ready when the handshake is done and the commands are known") {
    PoolRig rig;
    rig.valkey.answers["COMMAND"] = FakeValkey::kSilent;
    rig.start();
    CHECK_FALSE(rig.pool->health().is_ready);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("COMMAND") == 1; }));
    CHECK_FALSE(rig.pool->health().is_ready);
    rig.valkey.send(0,
                    "*1\r\n*10\r\n+get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"
                    "*0\r\n*0\r\n*0\r\n*0\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.pool->health().is_ready; }));
    CHECK(rig.told == std::vector<std::string>{"ready"});
    CHECK(rig.metrics.ready == 1);
    CHECK(rig.pool->commands().size() > 0);
    CHECK(rig.pool->hello().find("server")->text == "valkey");
    CHECK(rig.pool->is_known_database(0));
    CHECK_FALSE(rig.pool->is_known_database(1));
}

TEST_CASE("pool: sessions of one protocol and database share upstream.connections") {
    PoolRig rig;
    rig.options.connections = 2;
    rig.make_ready();
    Connection* first = rig.pool->acquire(2, 0);
    Connection* second = rig.pool->acquire(2, 0);
    Connection* third = rig.pool->acquire(2, 0);
    CHECK(first != second);
    CHECK((third == first || third == second));
    CHECK(rig.pool->acquire(3, 0) != rig.pool->acquire(2, 5));
    rig.pool->release(*first);
    CHECK(rig.pool->acquire(2, 0) != nullptr);
}

TEST_CASE("pool: replies in RESP3 may overtake news where a group has more than one connection") {
    PoolRig rig;
    rig.options.connections = 2;
    rig.make_ready();
    CHECK(rig.pool->acquire(3, 0) != nullptr);
    CHECK_FALSE(rig.pool->may_overtake(3));
    CHECK(rig.pool->may_overtake(2));
    CHECK(rig.pool->acquire(3, 0) != nullptr);
    CHECK(rig.pool->may_overtake(3));
}

TEST_CASE("pool: connections_max is a limit for groups, not for sessions") {
    PoolRig rig;
    rig.options.connections_max = 2;
    rig.options.connections = 2;
    rig.make_ready();
    Connection* shared = rig.pool->acquire(2, 1);
    REQUIRE(shared != nullptr);
    CHECK(rig.pool->acquire(2, 1) == shared);
    CHECK(rig.pool->acquire(3, 0) == nullptr);
    CHECK(rig.metrics.upstream_shared_refused_total == 1);
    CHECK(rig.pool->acquire(2, 0) != nullptr);
}

TEST_CASE("pool: a lease given back clean is reused, by the same protocol and database only") {
    PoolRig rig;
    rig.make_ready();
    Connection& lease = rig.used_lease("EVAL x 0");
    rig.pool->give_back(lease, LeaseEnd::Clean);
    CHECK(rig.pool->lease_count() == 0);
    Connection* other = rig.lease(3, 0);
    CHECK(other != &lease);
    CHECK(rig.lease(2, 0) == &lease);
    CHECK(rig.pool->lease_count() == 2);
    CHECK(rig.metrics.upstream_dedicated_leased == 2);
}

TEST_CASE("pool: a lease given back dirty is closed") {
    PoolRig rig;
    rig.make_ready();
    Connection& lease = rig.used_lease("EVAL x 0");
    const size_t peer = rig.valkey.peer_of("EVAL x 0");
    rig.pool->give_back(lease, LeaseEnd::Dirty);
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
    rig.used_lease("EVAL y 0");
    CHECK(rig.valkey.peer_of("EVAL y 0") != peer);
}

TEST_CASE("pool: a lease that still owes a reply is closed, however it is given back") {
    PoolRig rig;
    rig.make_ready();
    rig.valkey.answers["EVAL slow 0"] = FakeValkey::kSilent;
    Connection* lease = rig.lease(2, 0);
    Collector receiver;
    rig.send(*lease, receiver, "EVAL slow 0");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("EVAL slow 0") == 1; }));
    lease->forget(receiver);
    rig.pool->give_back(*lease, LeaseEnd::Clean);
    const size_t peer = rig.valkey.peer_of("EVAL slow 0");
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
    CHECK(receiver.told.empty());
}

TEST_CASE("pool: of the leases given back at most dedicated_idle_max are kept") {
    PoolRig rig;
    rig.options.dedicated_idle_max = 1;
    rig.make_ready();
    Connection& first = rig.used_lease("EVAL x 0");
    Connection& second = rig.used_lease("EVAL y 0");
    rig.pool->give_back(first, LeaseEnd::Clean);
    rig.pool->give_back(second, LeaseEnd::Clean);
    CHECK(run_until(rig.loop, [&] { return rig.valkey.open_count() == 2; }));
    CHECK(rig.valkey.is_open(rig.valkey.peer_of("EVAL y 0")));
}

TEST_CASE("pool: at most dedicated_max are leased at a time") {
    PoolRig rig;
    rig.options.dedicated_max = 2;
    rig.make_ready();
    Connection& first = rig.used_lease("EVAL x 0");
    rig.used_lease("EVAL y 0");
    CHECK(rig.lease(2, 0) == nullptr);
    CHECK(rig.metrics.upstream_dedicated_waits_total == 1);
    rig.pool->give_back(first, LeaseEnd::Clean);
    CHECK(rig.waiter.possible == 1);
    // The place is kept for the one who waited.
    Waiter newcomer;
    CHECK(rig.pool->lease({2, 0, rig.identity}, newcomer) == nullptr);
    CHECK(rig.lease(2, 0) == &first);
    CHECK(rig.lease(2, 0) == nullptr);
    rig.pool->stop_waiting(newcomer);
}

TEST_CASE("pool: who waits too long for a lease is told so") {
    PoolRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 30;
    rig.make_ready();
    rig.used_lease("EVAL x 0");
    CHECK(rig.lease(2, 0) == nullptr);
    CHECK(run_until(rig.loop, [&] { return rig.waiter.refused == 1; }));
    CHECK(rig.metrics.upstream_dedicated_refused_total == 1);
    CHECK(rig.waiter.possible == 0);
}

TEST_CASE("pool: a waiter that is gone passes its place on") {
    PoolRig rig;
    rig.options.dedicated_max = 1;
    rig.make_ready();
    Connection& first = rig.used_lease("EVAL x 0");
    Waiter gone;
    CHECK(rig.pool->lease({2, 0, rig.identity}, gone) == nullptr);
    CHECK(rig.lease(2, 0) == nullptr);
    rig.pool->give_back(first, LeaseEnd::Clean);
    CHECK(gone.possible == 1);
    CHECK(rig.waiter.possible == 0);
    rig.pool->stop_waiting(gone);
    CHECK(rig.waiter.possible == 1);
    CHECK(rig.lease(2, 0) != nullptr);
}

TEST_CASE("pool: reusing a kept lease does not lead beyond dedicated_max") {
    PoolRig rig;
    rig.options.dedicated_max = 1;
    rig.make_ready();
    rig.pool->give_back(rig.used_lease("EVAL x 0"), LeaseEnd::Clean);
    REQUIRE(rig.lease(3, 0) != nullptr);
    CHECK(rig.lease(2, 0) == nullptr);
}

TEST_CASE("pool: a SELECT that is refused closes that group only, and the next use asks again") {
    PoolRig rig;
    rig.valkey.answers["SELECT 99"] = "-ERR DB index is out of range\r\n";
    rig.make_ready();
    Connection* group = rig.pool->acquire(2, 99);
    Collector receiver;
    rig.send(*group, receiver, "SET a 1");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.last_error.ends_with("ERR DB index is out of range"));
    CHECK(group->state() == ConnectionState::Closed);
    CHECK(rig.pool->health().is_ready);
    CHECK_FALSE(rig.pool->is_known_database(99));
    Connection* again = rig.pool->acquire(2, 99);
    CHECK(again != group);
    rig.pool->release(*group);
    rig.valkey.answers.clear();
    rig.send(*again, receiver, "SET b 1");
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told.back() == "0 +SET b 1");
    CHECK(rig.pool->is_known_database(99));
}

TEST_CASE("pool: a shared connection that nobody uses is closed, the primary is not") {
    PoolRig rig;
    rig.options.idle_timeout_ms = 30;
    rig.make_ready();
    Connection* shared = rig.pool->acquire(2, 5);
    Collector receiver;
    rig.send(*shared, receiver, "GET a");
    REQUIRE(rig.run_until_told(receiver, 1));
    rig.pool->release(*shared);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.open_count() == 1; }));
    CHECK(rig.valkey.is_open(0));
    CHECK(rig.metrics.upstream_connections == 1);
}

TEST_CASE("pool: the command table is asked for again at most once a second") {
    PoolRig rig;
    rig.make_ready();
    for (int i = 0; i < 10; ++i)
        rig.pool->refresh_commands();
    Connection& primary = *rig.pool->acquire(2, 0);
    Collector receiver;
    rig.send(primary, receiver, "GET a");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(rig.valkey.times_asked("COMMAND") == 1);
}

TEST_CASE("pool: requests that are too old fail within a tick, sent or waiting") {
    PoolRig rig;
    rig.options.request_timeout_ms = 30;
    rig.options.queue_timeout_ms = 30;
    rig.make_ready();
    rig.valkey.answers["SET a 1"] = FakeValkey::kSilent;
    Connection& primary = *rig.pool->acquire(2, 0);
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

TEST_CASE("pool: a server that does not tell its commands is not ready, and its words are why") {
    PoolRig rig;
    rig.valkey.answers["COMMAND"] = "-NOPERM no permissions to run 'command'\r\n";
    rig.start();
    REQUIRE(run_until(rig.loop, [&] {
        return rig.pool->health().reason.find("NOPERM no permissions") != std::string::npos;
    }));
    CHECK_FALSE(rig.pool->health().is_ready);
}

TEST_CASE("pool: a lease that is kept is listed as idle") {
    PoolRig rig;
    rig.make_ready();
    const auto has_kind = [&](std::string_view kind) {
        const ConnectionList list = rig.pool->list(10);
        CHECK(list.total == 2);
        return std::any_of(list.connections.begin(), list.connections.end(),
                           [&](const ConnectionFacts& facts) { return facts.kind == kind; });
    };
    Connection& lease = rig.used_lease("EVAL x 0");
    CHECK(has_kind("dedicated"));
    CHECK_FALSE(has_kind("idle"));
    rig.pool->give_back(lease, LeaseEnd::Clean);
    CHECK(has_kind("idle"));
    CHECK_FALSE(has_kind("dedicated"));
    CHECK(rig.pool->list(1).connections.size() == 1);
    CHECK(rig.pool->list(1).total == 2);
}

TEST_CASE("pool: what a busy server does not track is tracked when it is no longer busy") {
    PoolRig rig;
    rig.make_ready_with_cache();
    rig.valkey.answers["CLIENT TRACKING ON OPTOUT"] = "-BUSY running a script\r\n";
    Connection* connection = rig.pool->acquire(3, 0);
    Collector receiver;
    rig.send(*connection, receiver, "ECHO x");
    REQUIRE(rig.run_until_told(receiver, 1));
    REQUIRE(run_until(rig.loop,
                      [&] { return rig.valkey.times_asked("CLIENT TRACKING ON OPTOUT") >= 1; }));
    CHECK(connection->source() == NearCache::kNoSource);
    rig.valkey.answers["CLIENT TRACKING ON OPTOUT"] = "+OK\r\n";
    CHECK(run_until(rig.loop, [&] { return connection->source() != NearCache::kNoSource; }));
    CHECK(rig.metrics.near_cache_tracking == 1);
}

}  // namespace
}  // namespace nearkey
