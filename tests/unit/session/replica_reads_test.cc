// Reads from a replica: which go there, in what order with all else, and what becomes of one that
// the replica does not answer.
#include "replica_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::replica_reads_test {
namespace {

// As long as nothing says otherwise it has the same words as its primary.
const std::string kRead = "GET " + ReplicaRig::key();
const std::string kWrite = "SET " + ReplicaRig::key() + " 1";

}  // namespace

// --- which are read ---

TEST_CASE("replica reads: one that is behind its primary is not read") {
    ReplicaRig rig;
    rig.say_offsets(100, 99);
    rig.make_cluster_ready();
    FakeClient& client = rig.add_client();
    rig.ask(client, kRead);
    rig.settle_rounds();
    rig.ask(client, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
    rig.say_offsets(100, 100);
    rig.wait_proven(client);
}

TEST_CASE("replica reads: a primary that owns nothing proves nothing") {
    ReplicaRig rig;
    rig.valkey.ownership_answer = "-CLUSTERDOWN The cluster is down\r\n";
    rig.make_cluster_ready();
    FakeClient& client = rig.add_client();
    rig.ask(client, kRead);
    REQUIRE(rig.run_until_asked("INFO replication", 3));
    rig.ask(client, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
}

TEST_CASE("replica reads: before Valkey 8 a replica is not read") {
    ReplicaRig rig;
    rig.say_version("7.2.9");
    rig.make_cluster_ready();
    FakeClient& client = rig.add_client();
    rig.ask(client, kRead);
    REQUIRE(run_until(rig.loop, [&] { return rig.replica.times_asked("INFO replication") > 2; }));
    rig.ask(client, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
}

TEST_CASE("replica reads: nothing that another listener's clients read goes there") {
    ReplicaRig rig;
    rig.make_read();
    rig.terms.reads_replicas = false;
    FakeClient& client = rig.add_client();
    rig.ask(client, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
}

TEST_CASE("replica reads: a connection that came later than the proof waits for the next") {
    ReplicaRig rig;
    FakeClient& client = rig.make_read();
    rig.stop_proofs();
    for (size_t peer = 0; peer < rig.replica.peer_count(); ++peer)
        rig.replica.close(peer);
    const size_t hellos = rig.replica.times_asked("READONLY");
    REQUIRE(run_until(rig.loop, [&] { return rig.replica.times_asked("READONLY") > hellos; }));
    rig.settle_rounds();
    rig.ask(client, kRead);
    CHECK(rig.replica.times_asked(kRead) == 0);
    rig.say_offsets(100, 100);
    rig.wait_proven(client);
}

// --- the near cache ---

TEST_CASE("replica reads: a reply that may be newer than what is stored waits for a proof") {
    ReplicaRig rig;
    const std::string read = "PTTL " + ReplicaRig::key();
    rig.make_read();
    rig.terms.cache_use = CacheUse::On;
    FakeClient& client = rig.add_cluster_client();
    for (int tries = 0; tries < 1000 && rig.replica.times_asked(read) == 0; ++tries) {
        rig.pass(5);
        rig.ask(client, read);
    }
    REQUIRE(rig.replica.times_asked(read) == 1);
    rig.store(client, ReplicaRig::key());
    rig.silence("PING");
    rig.replica.answers[read] = "$1\r\nn\r\n";
    client.ask({read});
    REQUIRE(run_until(rig.loop, [&] { return rig.replica.times_asked(read) == 2; }));
    rig.run_until_read(rig.replica.peer_of(read));
    CHECK_FALSE(client.output().ends_with("$1\r\nn\r\n"));
    for (size_t peer = 0; peer < rig.valkey.peer_count(); ++peer)
        if (rig.valkey.is_open(peer) && rig.valkey.asked(peer).front().starts_with("HELLO 3"))
            rig.valkey.send(peer, "+PONG\r\n");
    CHECK(rig.run_until_end(client, "$1\r\nn\r\n"));
    // Nothing of the replica's is stored.
    CHECK(rig.outcome(ReplicaRig::key()) == NearCache::Outcome::Hit);
}

// --- order ---

TEST_CASE("replica reads: a write behind a read that the replica has waits for its reply") {
    ReplicaRig rig;
    FakeClient& client = rig.make_read();
    rig.replica.answers[kRead] = FakeValkey::kSilent;
    client.ask({kRead, kWrite});
    REQUIRE(run_until(rig.loop, [&] { return rig.replica.times_asked(kRead) == 1; }));
    rig.settle();
    CHECK(rig.valkey.times_asked(kWrite) == 0);
    rig.replica.send(rig.replica.peer_of(kRead), "$1\r\n0\r\n");
    REQUIRE(rig.run_until_end(client, "$1\r\n0\r\n+" + kWrite + "\r\n"));
}

TEST_CASE("replica reads: a read behind a write that is in flight goes to the primary") {
    ReplicaRig rig;
    FakeClient& client = rig.make_read();
    rig.silence(kWrite);
    client.ask({kWrite, kRead});
    REQUIRE(rig.run_until_asked(kRead, 1));
    CHECK(rig.replica.times_asked(kRead) == 0);
    rig.valkey.send(rig.valkey.peer_of(kWrite), "+OK\r\n");
}

TEST_CASE("replica reads: what a client reads of a slot while one owes it a reply stays there") {
    ReplicaRig rig;
    rig.say_replicas({ReplicaRig::kReplicaPort, ReplicaRig::kSecondPort});
    rig.second.answers = rig.replica.answers;
    // Of two clients one has the one, one the other, as long as both are up to date.
    FakeClient& client = rig.make_read();
    const std::string next = kRead + "b";
    for (FakeValkey* const fake : {&rig.replica, &rig.second}) {
        fake->answers[kRead] = FakeValkey::kSilent;
        fake->answers[next] = FakeValkey::kSilent;
    }
    client.ask({kRead});
    const auto times = [&](const std::string& command) {
        return rig.replica.times_asked(command) + rig.second.times_asked(command);
    };
    REQUIRE(run_until(rig.loop, [&] { return times(kRead) == 1; }));
    FakeValkey& asked = rig.replica.times_asked(kRead) == 1 ? rig.replica : rig.second;
    // It is silent from now on, about what it has and how far it is: others go elsewhere.
    const auto chosen = [&] {
        const uint16_t primary = rig.cluster->owner(ReplicaRig::kSlot).coherence().number();
        return rig.cluster->replicas
            ->choose({.primary = primary,
                      .slot = ReplicaRig::kSlot,
                      .protocol = Protocol::Resp2,
                      .session = rig.clients.size()})
            .node;
    };
    const Node* const first = chosen();
    asked.answers["INFO replication"] = FakeValkey::kSilent;
    REQUIRE(run_until(rig.loop, [&] { return chosen() != nullptr && chosen() != first; }));
    client.ask({next});
    rig.settle();
    CHECK(times(next) == 0);
    CHECK(rig.valkey.times_asked(next) == 0);
    // Another client's goes elsewhere.
    FakeClient& another = rig.add_client();
    another.ask({next});
    REQUIRE(run_until(rig.loop, [&] { return times(next) + rig.valkey.times_asked(next) == 1; }));
    CHECK(asked.times_asked(next) == 0);
    asked.send(asked.peer_of(kRead), "$1\r\n0\r\n");
    CHECK(run_until(rig.loop, [&] { return times(next) + rig.valkey.times_asked(next) == 2; }));
}

// --- what the replica does not answer ---

TEST_CASE("replica reads: one that the replica refuses goes to the primary") {
    for (const std::string words :
         {"-LOADING Valkey is loading the dataset in memory\r\n",
          "-MASTERDOWN Link with MASTER is down\r\n", "-NOPERM no permissions\r\n",
          "-MOVED 100 host:7002\r\n", "-ASK 100 host:7002\r\n", "-CLUSTERDOWN The cluster\r\n"}) {
        CAPTURE(words);
        ReplicaRig rig;
        FakeClient& client = rig.make_read();
        rig.replica.answers[kRead] = words;
        const size_t before = rig.valkey.times_asked(kRead);
        rig.ask(client, kRead);
        CHECK(rig.replica.times_asked(kRead) == 1);
        CHECK(rig.valkey.times_asked(kRead) == before + 1);
        CHECK(rig.other.times_asked(kRead) == 0);
        CHECK(client.output().find(words.substr(0, 4)) == std::string::npos);
    }
}

TEST_CASE("replica reads: those that a lost replica had go to the primary, in order") {
    ReplicaRig rig;
    FakeClient& client = rig.make_read();
    const std::string next = kRead + "b";
    rig.replica.answers[kRead] = "$100\r\nhalf";
    rig.replica.answers[next] = FakeValkey::kSilent;
    client.ask({kRead, next});
    REQUIRE(run_until(rig.loop, [&] { return rig.replica.times_asked(next) == 1; }));
    rig.settle();
    rig.replica.close(rig.replica.peer_of(next));
    REQUIRE(rig.run_until_end(client, "+" + kRead + "\r\n+" + next + "\r\n"));
    CHECK(client.output().find("half") == std::string::npos);
}

TEST_CASE("replica reads: those that a silent replica has go to the primary within the bound") {
    ReplicaRig rig;
    rig.cluster_options.replica_lag_max_ms = 100;
    FakeClient& client = rig.make_read();
    rig.settle_rounds();
    rig.replica.freeze();
    client.ask({kRead});
    REQUIRE(rig.run_until_end(client, "+" + kRead + "\r\n"));
    CHECK(rig.valkey.times_asked(kRead) == 1);
    // Its reply comes all the same, and is nobody's.
    rig.replica.thaw();
    rig.wait_proven(client);
    rig.ask(client, kRead);
}

TEST_CASE("replica reads: and in time to be answered, however long the bound is") {
    ReplicaRig rig;
    rig.options.request_timeout_ms = 1000;
    FakeClient& client = rig.make_read();
    rig.settle_rounds();
    rig.replica.freeze();
    client.ask({kRead});
    REQUIRE(rig.run_until_end(client, "+" + kRead + "\r\n"));
}

TEST_CASE("replica reads: a client that leaves is told nothing of what the replica has") {
    ReplicaRig rig;
    FakeClient& client = rig.make_read();
    rig.replica.answers[kRead] = FakeValkey::kSilent;
    client.ask({kRead, kRead + "b"});
    REQUIRE(run_until(rig.loop, [&] { return rig.replica.times_asked(kRead + "b") == 1; }));
    client.session.abort();
    rig.replica.send(rig.replica.peer_of(kRead), "$1\r\n0\r\n");
    rig.settle();
    rig.replica.close(rig.replica.peer_of(kRead));
    rig.settle();
    CHECK(rig.valkey.times_asked(kRead) == 0);
}

}  // namespace nearkey::replica_reads_test
