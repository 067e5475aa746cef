// One case for each rule of base/sabotage.h that only a cluster has: it fails where its rule is
// broken (nearkey_rule_tests, run by tests/run_all.py).
#include "cluster_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::cluster_rules_test {
namespace {

using Outcome = NearCache::Outcome;
constexpr uint16_t kSlot = 100;

}  // namespace

TEST_CASE("rule absence: that a key is not there is served for max_staleness_ms at most") {
    ClusterRig rig;
    FakeClient& client = rig.make_cluster_ready();
    const std::string key = ClusterRig::key_of(kSlot);
    rig.store(client, key, ":-2\r\n");
    CHECK(rig.explain(key).left_ms <= rig.cache_options.max_staleness_ms);
    const std::string there = ClusterRig::key_of(kSlot + 1);
    rig.store(client, there);
    CHECK(rig.explain(there).left_ms > rig.cache_options.max_staleness_ms);
}

TEST_CASE("rule redirect_void: what is stored of a slot is void where one of its keys is sent on") {
    ClusterRig rig;
    FakeClient& client = rig.make_cluster_ready();
    const std::string key = ClusterRig::key_of(kSlot);
    rig.store(client, key);
    rig.valkey.answers["GET " + key + "b"] =
        ClusterRig::sent_on("ASK", kSlot, ClusterRig::kOtherPort);
    client.ask({"GET " + key + "b"});
    REQUIRE(rig.run_until_end(client, "+GET " + key + "b\r\n"));
    CHECK(rig.outcome(key) == Outcome::Miss);
}

TEST_CASE("rule gate: a command waits for one before it that may be on its way elsewhere") {
    ClusterRig rig;
    FakeClient& client = rig.make_cluster_ready();
    FakeClient& mover = rig.add_client();  // in RESP2: over another connection
    const std::string key = ClusterRig::key_of(kSlot);
    const std::string write = "SET " + key + " 1";
    rig.silence(write);
    client.ask({write});
    REQUIRE(rig.run_until_asked(write, 1));
    rig.move_to_other(kSlot, "GET " + key + "b");
    mover.ask({"GET " + key + "b"});
    REQUIRE(rig.run_until_end(mover, "+GET " + key + "b" + "\r\n"));
    client.ask({write});
    mover.ask({"ECHO later"});
    REQUIRE(rig.run_until_end(mover, "+ECHO later\r\n"));
    rig.settle();
    CHECK(rig.other.times_asked(write) == 0);
    rig.valkey.send(rig.valkey.peer_of(write), "+OK\r\n");
    CHECK(run_until(rig.loop, [&] { return rig.other.times_asked(write) == 1; }));
}

TEST_CASE("rule ownership: a node that owns nothing proves nothing, though it answers") {
    ClusterRig rig;
    rig.cache_options.max_staleness_ms = 300;
    rig.options.heartbeat_interval_ms = 20;
    FakeClient& client = rig.make_cluster_ready();
    const std::string key = ClusterRig::key_of(kSlot);
    rig.store(client, key);
    rig.valkey.ownership_answer = "-CLUSTERDOWN The cluster is down\r\n";
    CHECK(run_until(rig.loop, [&] { return rig.outcome(key) == Outcome::Unproven; }));
}

}  // namespace nearkey::cluster_rules_test
