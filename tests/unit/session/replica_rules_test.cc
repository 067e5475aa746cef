// One case for each rule of base/sabotage.h about reads from replicas: it fails where its rule is
// broken (nearkey_rule_tests, run by tests/run_all.py).
#include "replica_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::replica_rules_test {
namespace {

const std::string kRead = "GET " + ReplicaRig::key();
const std::string kWrite = "SET " + ReplicaRig::key() + " 1";

}  // namespace

TEST_CASE("rule replica_own_write: a replica that may not have a write of this host is not read") {
    ReplicaRig rig;
    FakeClient& reader = rig.make_read();
    rig.stop_proofs();
    FakeClient& writer = rig.add_client();
    rig.ask(reader, kRead);
    REQUIRE(rig.replica.times_asked(kRead) == 1);
    rig.ask(writer, kWrite);
    rig.ask(reader, kRead);
    CHECK(rig.replica.times_asked(kRead) == 1);
    CHECK(rig.valkey.times_asked(kRead) == 1);
}

TEST_CASE("rule replica_bound: a replica that was not proven within the bound is not read") {
    ReplicaRig rig;
    rig.cluster_options.replica_lag_max_ms = 400;
    FakeClient& reader = rig.make_read();
    rig.stop_proofs();
    rig.pass(400);
    rig.ask(reader, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
    CHECK(rig.valkey.times_asked(kRead) == 1);
}

TEST_CASE("rule replica_asked: the bound counts from when the primary was asked") {
    ReplicaRig rig;
    rig.cluster_options.replica_lag_max_ms = 200;
    rig.make_cluster_ready();
    FakeClient& reader = rig.add_client();
    rig.silence("INFO replication");
    rig.valkey.ownership_answer = "";
    const size_t answered = rig.valkey.times_asked("INFO replication");
    rig.ask(reader, kRead + "a");
    REQUIRE(rig.run_until_asked("INFO replication", answered + 1));
    rig.pass(200);
    const size_t asked = rig.replica.times_asked("INFO replication");
    // What is asked from now on is answered, and proves nothing newer.
    rig.valkey.ownership_answer = ":0\r\n";
    rig.valkey.answers["INFO replication"] = ReplicaRig::primary_info(UINT32_MAX);
    for (size_t peer = 0; peer < rig.valkey.peer_count(); ++peer) {
        for (const std::string& question : rig.valkey.unanswered(peer)) {
            const bool is_info = question == "INFO replication";
            rig.valkey.send(peer, is_info ? ReplicaRig::primary_info(100) : ":0\r\n");
        }
    }
    REQUIRE(
        run_until(rig.loop, [&] { return rig.replica.times_asked("INFO replication") > asked; }));
    rig.settle();
    rig.ask(reader, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
}

}  // namespace nearkey::replica_rules_test
