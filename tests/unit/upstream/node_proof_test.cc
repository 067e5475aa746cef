// What proves that all changes to what is stored are known.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::node_proof_test {
namespace {

constexpr const char* kRedirected = "CLIENT TRACKING ON OPTOUT REDIRECT 7";
constexpr const char* kStats = "INFO commandstats keyspace";
const CacheQuery kQuery{.key = "k", .arguments = {}, .command = 2, .database = 0};

struct Proof final : ProofWaiter {
    void on_proven() override { ++told; }
    int told = 0;
};

// Until the primary, a RESP2 connection, is tracked; with a heartbeat each ten milliseconds.
void make_redirected(NodeRig& rig) {
    rig.valkey.answers["HELLO 3"] =
        "%3\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:3\r\n"
        "$2\r\nid\r\n:7\r\n";
    rig.valkey.answers[kRedirected] = "+OK\r\n";
    rig.valkey.answers[kStats] = "-NOPERM no\r\n";
    rig.near.max_staleness_ms = 60'000;
    rig.make_ready_with_cache();
    rig.node->bound_staleness(60'000);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.near_cache_tracking == 1; }));
}

void answer(NodeRig& rig, size_t peer) {
    rig.valkey.send(peer, "+PONG\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.unread(peer) == 0; }));
    rig.settle();
}

size_t receiver(NodeRig& rig) {
    return rig.valkey.peer_of("HELLO 3");
}

// Before it is silent: one that waits is not found.
NearCache::SourceId source_of_redirected(NodeRig& rig) {
    return rig.node->shared().find_ready(Protocol::Resp2, 0)->tracking().source();
}

void store(NodeRig& rig, NearCache::SourceId source) {
    const auto ticket = rig.cache->begin_fill(kQuery, source);
    REQUIRE(ticket != 0);
    rig.cache->commit(ticket, "v", UINT64_MAX, Loop::boot_ms());
}

// With something stored, once heartbeats come and go.
void make_stored(NodeRig& rig) {
    make_redirected(rig);
    const Count& beats = rig.metrics.heartbeats_total;
    REQUIRE(run_until(rig.loop, [&] { return beats > 8; }));
    store(rig, source_of_redirected(rig));
}

NearCache::Outcome outcome_of_stored(NodeRig& rig) {
    return rig.cache->explain(kQuery, Loop::boot_ms()).outcome;
}

// No beat comes, and no PING is answered but by answer().
void prove_in_silence(NodeRig& rig, Proof& proof) {
    rig.options.heartbeat_interval_ms = 3'600'000;
    rig.node->bound_staleness(60'000'000);
    rig.settle();
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    rig.node->coherence().proofs().prove(proof);
}

}  // namespace

TEST_CASE("proof: a RESP2 connection that the server has dropped without our knowing is none") {
    Proof proof;
    NodeRig rig;
    make_redirected(rig);
    const NearCache::SourceId source = source_of_redirected(rig);
    prove_in_silence(rig, proof);
    rig.settle();
    answer(rig, receiver(rig));
    CHECK(proof.told == 0);
    SUBCASE("it has answered") {
        answer(rig, rig.valkey.peer_of(kRedirected));
        CHECK(proof.told == 1);
    }
    SUBCASE("its loss becomes known: what came of it is void") {
        store(rig, source);
        rig.valkey.close(rig.valkey.peer_of(kRedirected));
        REQUIRE(run_until(rig.loop, [&] { return proof.told == 1; }));
        CHECK(outcome_of_stored(rig) == NearCache::Outcome::Miss);
    }
}

TEST_CASE("proof: of a RESP2 connection both it and the receiver must have answered") {
    NodeRig rig;
    make_stored(rig);
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    const auto proven_ms = [&] {
        const uint64_t now_ms = Loop::boot_ms();
        return now_ms - rig.cache->explain(kQuery, now_ms).proven_ms;
    };
    const uint64_t silent_ms = Loop::boot_ms();
    REQUIRE(run_until(rig.loop, [&] { return Loop::boot_ms() > silent_ms + 30; }));
    // What was sent before has been answered by now, and another one is outstanding.
    answer(rig, receiver(rig));
    CHECK(proven_ms() <= silent_ms);
    answer(rig, rig.valkey.peer_of(kRedirected));
    CHECK(proven_ms() >= silent_ms);
}

TEST_CASE("proof: who is late holds up a round for one beat, and no other one") {
    Proof proof;
    NodeRig rig;
    rig.valkey.keeps_order = true;
    // None is made beside those that wait, so nobody is answered.
    rig.options.connections_max = 1;
    make_stored(rig);
    // Each has one heartbeat outstanding by then.
    const auto pass_beats = [&] {
        const uint64_t begin_ms = Loop::boot_ms();
        REQUIRE(run_until(rig.loop, [&] { return Loop::boot_ms() > begin_ms + 30; }));
    };
    const auto answer_all = [&] {
        answer(rig, receiver(rig));
        answer(rig, rig.valkey.peer_of(kRedirected));
    };
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    pass_beats();
    REQUIRE(outcome_of_stored(rig) == NearCache::Outcome::Hit);
    rig.node->coherence().proofs().prove(proof);
    CHECK(proof.told == 0);
    REQUIRE(run_until(rig.loop, [&] { return proof.told == 1; }));
    CHECK(rig.metrics.near_cache_proofs_late_total == 2);
    CHECK(outcome_of_stored(rig) == NearCache::Outcome::Unproven);
    rig.node->coherence().proofs().prove(proof);
    CHECK(proof.told == 2);
    // The heartbeats and the round's own PINGs were asked too early to prove anything now.
    answer_all();
    answer_all();
    CHECK(outcome_of_stored(rig) == NearCache::Outcome::Unproven);
    pass_beats();
    answer_all();
    CHECK(outcome_of_stored(rig) == NearCache::Outcome::Hit);
    // Both are asked again.
    rig.node->coherence().proofs().prove(proof);
    CHECK(proof.told == 2);
}

TEST_CASE("proof: a PING that is not answered in time proves nothing") {
    Proof proof;
    NodeRig rig;
    rig.options.request_timeout_ms = 20;
    make_stored(rig);
    REQUIRE(outcome_of_stored(rig) == NearCache::Outcome::Hit);
    prove_in_silence(rig, proof);
    // The server answers a connection that is made beside those that wait, and these no longer
    // hold up anybody.
    REQUIRE(run_until(rig.loop, [&] { return proof.told == 1; }));
    CHECK(outcome_of_stored(rig) == NearCache::Outcome::Unproven);
    answer(rig, receiver(rig));
    answer(rig, rig.valkey.peer_of(kRedirected));
    CHECK(outcome_of_stored(rig) == NearCache::Outcome::Unproven);
    CHECK(proof.told == 1);
}

TEST_CASE("proof: a server that was started anew may have as many SWAPDB as the last one") {
    NodeRig rig;
    rig.valkey.answers[kStats] = "$40\r\n# Commandstats\r\ncmdstat_swapdb:calls=1,u\r\n";
    rig.make_ready_with_cache();
    REQUIRE(run_until(rig.loop, [&] { return rig.node->coherence().swapdb_known_ms() > 0; }));
    const Count& clears = rig.metrics.near_cache_clears_lost_total;
    CHECK(clears == 0);
    rig.valkey.close(rig.valkey.peer_of(kStats));
    CHECK(run_until(rig.loop, [&] { return clears == 1; }));
    CHECK(rig.metrics.near_cache_clears_swapdb_total == 0);
}

TEST_CASE("proof: nothing is stored before SWAPDB is counted, as one would go unnoticed") {
    NodeRig rig;
    // Whatever is answered behind it would be taken for its answer.
    rig.valkey.answers[kStats] = rig.valkey.answers["CONFIG GET *"] = FakeValkey::kSilent;
    // So a heartbeat must not be there soon.
    rig.make_ready_with_cache(500);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked(kStats) > 0; }));
    const Connection& connection = rig.tracked(0);
    CHECK(rig.node->coherence().sources().source_of(connection) == NearCache::kNoSource);
    rig.valkey.send(rig.valkey.peer_of(kStats), "$16\r\n# Commandstats\r\n\r\n");
    CHECK(run_until(rig.loop, [&] {
        return rig.node->coherence().sources().source_of(connection) != NearCache::kNoSource;
    }));
}

TEST_CASE("proof: a node that ends asks nobody for the round that waits behind") {
    Proof first;
    Proof second;
    NodeRig rig;
    make_redirected(rig);
    prove_in_silence(rig, first);
    rig.node->coherence().proofs().prove(second);
    const uint64_t rounds = rig.metrics.near_cache_proofs_total;
    rig.node.reset();
    CHECK(first.told == 1);
    CHECK(second.told == 1);
    CHECK(rig.metrics.near_cache_proofs_total == rounds);
}

TEST_CASE("proof: a node that becomes the seed of a cluster ends the round that it is in") {
    Proof first;
    Proof second;
    NodeRig rig;
    make_redirected(rig);
    ProofRounds& proofs = rig.node->coherence().proofs();
    proofs.prove(first);
    CHECK(first.told == 0);
    // It has no receiver from here on.
    rig.node->coherence().decide(true);
    CHECK(run_until(rig.loop, [&] { return first.told == 1; }));
    proofs.prove(second);
    CHECK(run_until(rig.loop, [&] { return second.told == 1; }));
}

}  // namespace nearkey::node_proof_test
