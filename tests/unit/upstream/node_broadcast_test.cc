// near_cache.tracking = "broadcast": one connection is told of changes for all.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>

namespace nearkey::node_broadcast_test {
namespace {

constexpr const char* kTracking = "CLIENT TRACKING ON BCAST PREFIX a: PREFIX b:";

struct Proof final : ProofWaiter {
    void on_proven() override { ++told; }
    int told = 0;
};

// Until the receiver is told of changes; no heartbeat disturbs.
void make_ready(NodeRig& rig) {
    rig.near.tracking = "broadcast";
    rig.near.prefixes = {"a:", "b:"};
    rig.valkey.answers[kTracking] = "+OK\r\n";
    rig.options.heartbeat_interval_ms = 3'600'000;
    rig.options.unready_after_ms = 3'600'000;
    rig.cache = std::make_unique<NearCache>(rig.near, rig.metrics, 1);
    rig.make_ready();
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.near_cache_tracking == 1; }));
}

}  // namespace

TEST_CASE("broadcast: the receiver alone is told, and by its word all reads may be stored") {
    NodeRig rig;
    make_ready(rig);
    CHECK(rig.valkey.times_asked(kTracking) == 1);
    CHECK(rig.valkey.times_asked("CLIENT TRACKING ON OPTOUT") == 0);
    const Connection& two = *rig.node->shared().find_ready(Protocol::Resp2, 0);
    CHECK(rig.node->coherence().sources().source_of(two) != NearCache::kNoSource);
    CHECK(two.tracking().source() == NearCache::kNoSource);
    // CLIENT CACHING is an error then.
    CHECK_FALSE(Sources::are_reads_tracked(two));
    CHECK(rig.node->coherence().may_overtake(Protocol::Resp3));
}

TEST_CASE("broadcast: only keys with one of the prefixes are told of") {
    NodeRig rig;
    make_ready(rig);
    CHECK(rig.node->coherence().sources().is_told_of("a:1"));
    CHECK(rig.node->coherence().sources().is_told_of("b:"));
    CHECK_FALSE(rig.node->coherence().sources().is_told_of("a"));
    CHECK_FALSE(rig.node->coherence().sources().is_told_of("c:a:"));
}

TEST_CASE("broadcast: a proof takes two PINGs, the second behind the first one's answer") {
    NodeRig rig;
    make_ready(rig);
    const size_t receiver = rig.valkey.peer_of(kTracking);
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    Proof proof;
    rig.node->coherence().proofs().prove(proof);
    rig.settle();
    rig.valkey.send(receiver, "+PONG\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.unread(receiver) == 0; }));
    rig.settle();
    CHECK(proof.told == 0);
    rig.valkey.send(receiver, "+PONG\r\n");
    REQUIRE(run_until(rig.loop, [&] { return proof.told == 1; }));
    rig.settle();
    CHECK(rig.valkey.is_open(receiver));  // Both had been asked for.
}

TEST_CASE("broadcast: the loss of the receiver voids everything, and that of any other as well") {
    for (const bool is_receiver : {true, false}) {
        NodeRig rig;
        make_ready(rig);
        const CacheQuery query{"a:k", {}, 1, 0};
        const auto source = rig.node->coherence().sources().source_of(
            *rig.node->shared().find_ready(Protocol::Resp2, 0));
        const auto ticket = rig.cache->begin_fill(query, source);
        rig.cache->commit(ticket, "v", UINT64_MAX, Loop::boot_ms());
        const auto open = rig.cache->begin_fill({"b:k", {}, 1, 0}, source);
        const Count& losses = rig.metrics.upstream_lost_socket_total;
        const uint64_t before = losses;
        rig.valkey.close(rig.valkey.peer_of(is_receiver ? kTracking : "COMMAND"));
        REQUIRE(run_until(rig.loop, [&] { return losses == before + 1; }));
        rig.cache->commit(open, "v", UINT64_MAX, Loop::boot_ms());
        CHECK(rig.cache->explain(query, Loop::boot_ms()).outcome == NearCache::Outcome::Miss);
        CHECK(rig.metrics.near_cache_fills_void_total == 1);
    }
}

TEST_CASE("broadcast: what Valkey refuses stores nothing") {
    NodeRig rig;
    make_ready(rig);
    rig.valkey.answers[kTracking] = "-NOPERM no\r\n";
    rig.valkey.close(rig.valkey.peer_of(kTracking));
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked(kTracking) == 2; }));
    rig.settle();
    CHECK(rig.node->coherence().sources().source_of(
              *rig.node->shared().find_ready(Protocol::Resp2, 0)) == NearCache::kNoSource);
}

TEST_CASE("broadcast: of a source it is said who is told of changes, as long as there is one") {
    NodeRig rig;
    make_ready(rig);
    const auto source = rig.node->coherence().sources().source_of(
        *rig.node->shared().find_ready(Protocol::Resp2, 0));
    CHECK(rig.node->coherence().describe(source).ends_with("(broadcast)"));
    CHECK(rig.node->coherence().describe(source + 1) == "lost");
}

TEST_CASE("broadcast: what a busy server refuses is asked for again when it is no longer busy") {
    NodeRig rig;
    rig.near.tracking = "broadcast";
    rig.near.prefixes = {"a:", "b:"};
    rig.valkey.answers[kTracking] = "-BUSY running a script\r\n";
    rig.options.heartbeat_interval_ms = 10;
    rig.cache = std::make_unique<NearCache>(rig.near, rig.metrics, 1);
    rig.make_ready();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked(kTracking) >= 2; }));
    CHECK(rig.metrics.near_cache_tracking == 0);
    rig.valkey.answers[kTracking] = "+OK\r\n";
    CHECK(run_until(rig.loop, [&] { return rig.metrics.near_cache_tracking == 1; }));
}

}  // namespace nearkey::node_broadcast_test
