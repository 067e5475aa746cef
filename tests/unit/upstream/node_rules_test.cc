// One case for each rule of base/sabotage.h that the node and its connections keep: it fails where
// its rule is broken (nearkey_rule_tests, run by tests/run_all.py).
#include "nearkey/upstream/node.h"
#include "nearkey/upstream/shared_proofs.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::node_rules_test {
namespace {

using Outcome = NearCache::Outcome;

constexpr const char* kStats = "INFO commandstats keyspace";

CacheQuery get(std::string_view key) {
    return {.key = key, .arguments = {}, .command = 3, .database = 0};
}

void store(NodeRig& rig, const Connection& connection, std::string_view key) {
    const auto ticket = rig.cache->begin_fill(get(key), connection.tracking().source());
    REQUIRE(ticket != 0);
    rig.cache->commit(ticket, "v", UINT64_MAX, Loop::boot_ms());
    REQUIRE(rig.cache->find(get(key), Loop::boot_ms()).outcome == Outcome::Hit);
}

// With no beats, and what a RESP3 connection to database 0 has read.
Connection& make_stored(NodeRig& rig, std::string_view key) {
    rig.near.max_staleness_ms = 60'000;
    rig.make_ready_with_cache();
    rig.options.heartbeat_interval_ms = 3'600'000;
    rig.node->bound_staleness(60'000'000);
    Connection& connection = rig.tracked(0);
    REQUIRE(run_until(rig.loop, [&] { return rig.node->coherence().swapdb_known_ms() > 0; }));
    store(rig, connection, key);
    return connection;
}

Outcome outcome(NodeRig& rig, std::string_view key) {
    return rig.cache->find(get(key), Loop::boot_ms()).outcome;
}

// A node's proof, which comes when the test says so.
struct HeldProofs final : ProofRounds {
    bool ask_again() override { return false; }
    void ask() override { owe(); }
    void answer() { on_answer(round()); }
};

struct Proof final : ProofWaiter {
    void on_proven() override { ++told; }
    int told = 0;
};

}  // namespace

TEST_CASE("rule generation: what came from a lost connection is void") {
    NodeRig rig;
    Connection& connection = make_stored(rig, "k");
    rig.valkey.close(rig.valkey.peer_of("CLIENT TRACKING ON OPTOUT"));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_lost_socket_total == 1; }));
    CHECK(outcome(rig, "k") == Outcome::Miss);
    REQUIRE(run_until(rig.loop, [&] { return connection.tracking().is_on(); }));
    CHECK(outcome(rig, "k") == Outcome::Miss);
}

TEST_CASE("rule push: each key of each push is invalidated") {
    NodeRig rig;
    Connection& connection = make_stored(rig, "k");
    std::string pushes;
    for (int i = 0; i < 1000; ++i) {
        const std::string key = std::to_string(i);
        store(rig, connection, key);
        pushes += ">2\r\n$10\r\ninvalidate\r\n*1\r\n$" + std::to_string(key.size()) + "\r\n" + key +
                  "\r\n";
    }
    rig.valkey.send(rig.valkey.peer_of("CLIENT TRACKING ON OPTOUT"), pushes);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_pushes_total == 1000; }));
    CHECK(rig.cache->entries() == 1);
    CHECK(outcome(rig, "k") == Outcome::Hit);
}

TEST_CASE("rule null_push: a push without keys is of all keys") {
    NodeRig rig;
    make_stored(rig, "k");
    rig.valkey.send(rig.valkey.peer_of("CLIENT TRACKING ON OPTOUT"),
                    ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_pushes_total == 1; }));
    CHECK(outcome(rig, "k") == Outcome::Miss);
}

TEST_CASE("rule other_loops: a proof asks the connections of every event loop") {
    Loop loop;
    Mailbox mailbox(loop);
    Mailbox other_mailbox(loop);
    HeldProofs own;
    HeldProofs others;
    Proof proof;
    SharedProofs all(mailbox, own);
    SharedProofs other_all(other_mailbox, others);
    all.add_other(other_all);
    all.prove(proof);
    REQUIRE(own.is_under_way());
    own.answer();
    REQUIRE(proof.told == 0);
    REQUIRE(run_until(loop, [&] { return others.is_under_way(); }));
    others.answer();
    CHECK(run_until(loop, [&] { return proof.told == 1; }));
}

TEST_CASE("rule swapdb_asked: what was swapped is known up to when it was asked for") {
    NodeRig rig;
    rig.near.max_staleness_ms = 60'000'000;
    rig.options.heartbeat_interval_ms = 3'600'000;
    // Whatever is answered behind it would be taken for its answer.
    rig.valkey.answers[kStats] = rig.valkey.answers["CONFIG GET *"] = FakeValkey::kSilent;
    rig.cache = std::make_unique<NearCache>(rig.near, rig.metrics, 1);
    rig.make_ready();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked(kStats) == 1; }));
    const uint64_t asked_ms = Loop::boot_ms();
    REQUIRE(run_until(rig.loop, [&] { return Loop::boot_ms() > asked_ms + 20; }));
    rig.valkey.send(rig.valkey.peer_of(kStats), "$16\r\n# Commandstats\r\n\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.node->coherence().swapdb_known_ms() > 0; }));
    CHECK(rig.node->coherence().swapdb_known_ms() <= asked_ms);
}

TEST_CASE("rule upstream: what another upstream has said is void, though it is there no more") {
    NodeRig rig;
    rig.near.stale_if_unavailable_ms = 60'000;
    make_stored(rig, "k");
    UpstreamUrl elsewhere = rig.url;
    elsewhere.path = rig.directory / "nobody";
    rig.node->topology().turn_to(std::make_unique<UpstreamTarget>(elsewhere, nullptr));
    CHECK(outcome(rig, "k") == Outcome::Miss);
    CHECK(rig.cache->find_stale(get("k"), Loop::boot_ms()).empty());
}

TEST_CASE("rule failover_void: what a former primary has said is void at the turn") {
    Trial trial;
    NodeRig rig;
    FakeValkey other(rig.loop, rig.directory / "other");
    other.answers["HELLO 2"] = "*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
    make_stored(rig, "k");
    UpstreamUrl elsewhere = rig.url;
    elsewhere.path = rig.directory / "other";
    rig.node->topology().seek_primary(std::make_unique<UpstreamTarget>(elsewhere, nullptr), trial);
    REQUIRE(run_until(rig.loop, [&] { return trial.proven == 1; }));
    CHECK(outcome(rig, "k") == Outcome::Hit);
    rig.node->topology().adopt_target();
    CHECK(outcome(rig, "k") == Outcome::Miss);
}

TEST_CASE("rule ownership_beat: a heartbeat that says replica is told, and proves nothing") {
    NodeRig rig;
    rig.make_ready_with_cache();
    Connection& connection = rig.tracked(0);
    store(rig, connection, "k");
    rig.valkey.answers["HELLO"] = "*2\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";
    CHECK(run_until(rig.loop, [&] { return rig.demoted > 0; }));
    CHECK(outcome(rig, "k") == Outcome::Miss);
}

TEST_CASE("rule suspicion: a server that was silent for long gets nothing") {
    NodeRig rig;
    rig.options.suspect_after_ms = 60;
    rig.options.heartbeat_interval_ms = 10;
    rig.make_ready();
    Connection& connection = *rig.node->shared().acquire(Protocol::Resp2, 0);
    rig.valkey.freeze();
    const uint64_t since = rig.loop.now_ms();
    run_until(rig.loop, [&] {
        return rig.metrics.upstream_suspects_total == 1 || rig.loop.now_ms() > since + 1000;
    });
    Collector receiver;
    rig.send(connection, receiver, "SET k v");
    rig.settle();
    CHECK(rig.metrics.queued == 1);
    rig.valkey.thaw();
    REQUIRE(rig.run_until_told(receiver, 1));
}

}  // namespace nearkey::node_rules_test
