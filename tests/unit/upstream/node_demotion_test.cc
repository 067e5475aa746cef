// A primary that becomes a replica, or that was silent for long, is not believed.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::node_demotion_test {
namespace {

const std::string kIsReplica = "*2\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";
const std::string kIsPrimary = "*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";

}  // namespace

TEST_CASE("demotion: the node tells of it, drops what it knows, and makes connections anew") {
    NodeRig rig;
    rig.make_ready_with_cache();
    rig.tracked(0);
    const size_t peers = rig.valkey.peer_count();
    const uint64_t clears = rig.metrics.near_cache_clears_lost_total;
    rig.valkey.answers["HELLO"] = kIsReplica;
    rig.valkey.answers["HELLO 2"] = kIsReplica;
    rig.valkey.answers["HELLO 3"] = "%1\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";
    REQUIRE(run_until(rig.loop, [&] { return rig.demoted > 0; }));
    CHECK(rig.metrics.near_cache_clears_lost_total > clears);
    // And again while it is so: where it leads may be another by then.
    const size_t told = rig.demoted;
    REQUIRE(run_until(rig.loop, [&] { return rig.demoted > told + 1; }));
    CHECK(rig.valkey.peer_count() > peers);
    rig.valkey.answers["HELLO"] = kIsPrimary;
    rig.settle();
    REQUIRE(run_until(rig.loop, [&] {
        const size_t before = rig.demoted;
        rig.settle();
        return rig.demoted == before;
    }));
}

TEST_CASE("suspicion: a server that was silent gets nothing before it has said what it is") {
    NodeRig rig;
    rig.suspect_soon();
    rig.make_ready();
    Connection& connection = *rig.node->shared().acquire(Protocol::Resp2, 0);
    rig.freeze_until_suspect();
    Collector receiver;
    rig.send(connection, receiver, "SET k v");
    rig.settle();
    CHECK(rig.metrics.queued == 1);
    SUBCASE("one that was only slow gets it then") {
        rig.valkey.thaw();
        REQUIRE(rig.run_until_told(receiver, 1));
        CHECK(receiver.told == std::vector<std::string>{"0 +SET k v"});
        CHECK(rig.valkey.peer_of("SET k v") == 0);
        CHECK(rig.demoted == 0);
    }
    SUBCASE("one that wakes up as a replica does not: who answers there now gets it") {
        rig.valkey.answers["HELLO"] = kIsReplica;
        rig.valkey.thaw();
        REQUIRE(rig.run_until_told(receiver, 1));
        CHECK(rig.valkey.peer_of("SET k v") > 0);
        CHECK(rig.demoted > 0);
    }
    CHECK(rig.valkey.times_asked("SET k v") == 1);
    CHECK(rig.metrics.upstream_suspects_total == 1);
}

TEST_CASE("suspicion: a transaction is asked for nothing, and goes on with the others") {
    NodeRig rig;
    rig.suspect_soon();
    rig.make_ready();
    Connection& lease = rig.used_lease("MULTI");
    rig.freeze_until_suspect();
    Collector receiver;
    rig.send(lease, receiver, "EXEC");
    rig.settle();
    CHECK(rig.metrics.queued == 1);
    rig.valkey.thaw();
    REQUIRE(rig.run_until_told(receiver, 1));
    const std::vector<std::string>& asked = rig.valkey.asked(rig.valkey.peer_of("EXEC"));
    REQUIRE(asked.size() > 2);
    CHECK(asked[asked.size() - 2] == "MULTI");
    CHECK(asked.back() == "EXEC");
}

TEST_CASE("suspicion: what is held back when another upstream is adopted goes there") {
    NodeRig rig;
    FakeValkey other(rig.loop, rig.directory / "other");
    rig.suspect_soon();
    rig.make_ready();
    Connection& connection = *rig.node->shared().acquire(Protocol::Resp2, 0);
    Connection& lease = rig.used_lease("ECHO x");
    rig.freeze_until_suspect();
    Collector receiver;
    Collector owner;
    rig.send(connection, receiver, "SET k v");
    rig.send(lease, owner, "SET l v");
    Trial trial;
    UpstreamUrl elsewhere = rig.url;
    elsewhere.path = rig.directory / "other";
    rig.node->topology().try_target(std::make_unique<UpstreamTarget>(elsewhere, nullptr), trial);
    REQUIRE(run_until(rig.loop, [&] { return trial.proven == 1; }));
    rig.node->topology().adopt_target();
    REQUIRE(rig.run_until_told(receiver, 1));
    REQUIRE(rig.run_until_told(owner, 1));
    CHECK(receiver.told == std::vector<std::string>{"0 +SET k v"});
    CHECK(other.times_asked("SET k v") == 1);
    CHECK(other.times_asked("SET l v") == 1);
    rig.valkey.thaw();
    rig.settle();
    CHECK(rig.valkey.times_asked("SET k v") == 0);
    CHECK(rig.metrics.queued == 0);
    CHECK(rig.metrics.upstream_connections_retired == 0);
}

TEST_CASE("demotion: what was asked of the new primary before it is adopted is answered") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 3'600'000;
    rig.make_ready();
    Connection& connection = *rig.node->shared().acquire(Protocol::Resp2, 0);
    // Its name leads to another from here on.
    rig.valkey.answers["HELLO"] = kIsReplica;
    rig.valkey.answers["HELLO 2"] = kIsPrimary;
    connection.probe().send_heartbeat();
    REQUIRE(run_until(rig.loop, [&] { return rig.demoted == 1; }));
    rig.valkey.answers["HELLO"] = kIsPrimary;
    // It asks for the commands itself; behind that it owes nothing.
    REQUIRE(run_until(rig.loop,
                      [&] { return connection.is_ready() && connection.pipeline().is_idle(); }));
    rig.valkey.answers["SET k v"] = "";
    Collector receiver;
    rig.send(connection, receiver, "SET k v");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("SET k v") == 1; }));
    const size_t peer = rig.valkey.peer_of("SET k v");
    Trial trial;
    rig.node->topology().seek_primary(nullptr, trial);
    REQUIRE(run_until(rig.loop, [&] { return trial.proven == 1; }));
    rig.node->topology().adopt_target();
    REQUIRE(rig.valkey.is_open(peer));
    rig.valkey.send(peer, "+OK\r\n");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told == std::vector<std::string>{"0 +OK"});
}

TEST_CASE("demotion: a lease that was dialled before, and is ready behind it, is lost") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 3'600'000;
    rig.valkey.answers["HELLO 2"] = kIsPrimary;
    rig.make_ready();
    rig.valkey.freeze();
    Connection* const lease = rig.lease(Protocol::Resp2, 0);
    REQUIRE(lease != nullptr);
    Collector receiver;
    rig.send(*lease, receiver, "WATCH k");
    rig.settle();
    rig.node->topology().note_demoted();
    rig.valkey.thaw();
    REQUIRE(rig.run_until_told(receiver, 1));
    const size_t peer = rig.valkey.peer_of("WATCH k");
    Trial trial;
    rig.node->topology().seek_primary(nullptr, trial);
    REQUIRE(run_until(rig.loop, [&] { return trial.proven == 1; }));
    CHECK(rig.valkey.is_open(peer));
    rig.node->topology().adopt_target();
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
}

TEST_CASE("suspicion: a lease that is given back meanwhile is not kept for the next session") {
    NodeRig rig;
    rig.suspect_soon();
    rig.make_ready();
    Connection& lease = rig.used_lease("ECHO x");
    rig.freeze_until_suspect();
    rig.node->leases().give_back(lease, LeaseEnd::Clean);
    rig.valkey.thaw();
    Connection& next = rig.used_lease("ECHO y");
    CHECK(next.pipeline().owed() == 0);
    CHECK(rig.valkey.times_asked("ECHO y") == 1);
}

TEST_CASE("suspicion: it can be switched off") {
    NodeRig rig;
    rig.options.suspect_after_ms = 0;
    rig.options.heartbeat_interval_ms = 10;
    rig.make_ready();
    Connection& connection = *rig.node->shared().acquire(Protocol::Resp2, 0);
    rig.valkey.freeze();
    const uint64_t since = rig.loop.now_ms();
    run_until(rig.loop, [&] { return rig.loop.now_ms() > since + 100; });
    Collector receiver;
    rig.send(connection, receiver, "SET k v");
    rig.settle();
    CHECK(rig.metrics.queued == 0);
    CHECK(rig.metrics.upstream_suspects_total == 0);
    rig.valkey.thaw();
    REQUIRE(rig.run_until_told(receiver, 1));
}

}  // namespace nearkey::node_demotion_test
