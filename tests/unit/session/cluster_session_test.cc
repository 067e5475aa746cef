// What a session before a cluster does where a node has sent its commands on, or says nothing.
#include "cluster_rig.h"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <string>
#include <vector>

namespace nearkey::cluster_session_test {
namespace {

using Outcome = NearCache::Outcome;
constexpr uint16_t kSlot = 100;

std::string table_with_ssubscribe(const std::string& table) {
    REQUIRE(table.starts_with("*41\r\n"));
    return "*42\r\n" + table.substr(5) +
           "*6\r\n$10\r\nssubscribe\r\n:-2\r\n*1\r\n+pubsub\r\n:1\r\n:-1\r\n:1\r\n";
}

std::string ssubscribed(const std::string& channel) {
    return fmt::format(">3\r\n$10\r\nssubscribe\r\n${}\r\n{}\r\n:1\r\n", channel.size(), channel);
}

}  // namespace

TEST_CASE("cluster: a slot is void once a turn, however many of its keys are sent on") {
    constexpr int kCommands = 200;
    ClusterRig rig;
    FakeClient& client = rig.make_cluster_ready();
    const std::string key = ClusterRig::key_of(kSlot);
    rig.store(client, key);
    std::vector<std::string> commands;
    for (int i = 0; i < kCommands; ++i) {
        commands.push_back("GET " + key + std::to_string(i));
        rig.valkey.answers[commands.back()] =
            ClusterRig::sent_on("ASK", kSlot, ClusterRig::kOtherPort);
    }
    const uint64_t before = rig.metrics.near_cache_slots_voided_total;
    client.ask(commands);
    REQUIRE(rig.run_until_end(client, "+" + commands.back() + "\r\n"));
    CHECK(rig.outcome(key) == Outcome::Miss);
    const uint64_t voided = rig.metrics.near_cache_slots_voided_total - before;
    CHECK(voided >= 1);
    CHECK(voided < kCommands / 4);
}

TEST_CASE("cluster: a reply that came by another node than was asked waits for a proof") {
    ClusterRig rig;
    FakeClient& client = rig.make_cluster_ready();
    const std::string read = "EXISTS " + ClusterRig::key_of(kSlot);
    const auto ask = [&] {
        const size_t expected = client.output().size() + read.size() + 3;
        client.ask({read});
        REQUIRE(run_until(rig.loop, [&] { return client.output().size() == expected; }));
    };
    rig.store(client, ClusterRig::key_of(kSlot + 1));  // An empty cache needs no proof.
    const uint64_t before = rig.metrics.near_cache_proofs_total;
    ask();
    CHECK(rig.metrics.near_cache_proofs_total == before);
    rig.valkey.answers[read] = ClusterRig::sent_on("ASK", kSlot, ClusterRig::kOtherPort);
    ask();
    CHECK(rig.metrics.near_cache_proofs_total > before);
}

TEST_CASE("cluster: proofs that end with their nodes ask no node any more") {
    struct Waiter final : ProofWaiter {
        void on_proven() override { ++proven; }
        int proven = 0;
    };
    ClusterRig rig;
    rig.make_cluster_ready();
    rig.silence("PING");
    Waiter first;
    Waiter second;
    rig.cluster->coherence().proofs().prove(first);
    rig.cluster->coherence().proofs().prove(second);
    // The one that ends last has proven its part.
    Node& last = rig.cluster->owner(kSlots - 1);
    REQUIRE(run_until(rig.loop, [&] { return !last.coherence().own_proofs().is_under_way(); }));
    CHECK(first.proven == 0);
    const uint64_t rounds = rig.metrics.near_cache_proofs_total;
    rig.clients.clear();
    rig.cluster->stop();
    CHECK(first.proven == 1);
    CHECK(second.proven == 1);
    CHECK(rig.metrics.near_cache_proofs_total == rounds);
}

TEST_CASE("cluster: a node that sends a proof on proves nothing by another's answer") {
    struct Waiter final : ProofWaiter {
        void on_proven() override { ++proven; }
        int proven = 0;
    };
    ClusterRig rig;
    rig.make_cluster_ready();
    rig.valkey.answers["PING"] = ClusterRig::sent_on("MOVED", kSlot, ClusterRig::kOtherPort);
    Waiter waiter;
    rig.cluster->coherence().proofs().prove(waiter);
    REQUIRE(run_until(rig.loop, [&] { return waiter.proven == 1; }));
    CHECK(rig.metrics.cluster_moved_total == 0);
    CHECK(rig.cluster->sent_on().size() == 0);
    CHECK(rig.cluster->changed(kSlot) <= 1);  // It has learned nothing of it.
}

TEST_CASE("cluster: what comes over the seed may be ahead of the news, which members bring") {
    ClusterRig rig;
    rig.make_cluster_ready();
    CHECK(rig.node->coherence().may_overtake(Protocol::Resp3));
    CHECK_FALSE(rig.cluster->owner(kSlot).coherence().may_overtake(Protocol::Resp3));
}

// Only a place in its queue keeps the node, and the client's end must not look for one there.
TEST_CASE("cluster: a lease that is refused knows nothing of a node that may go") {
    ClusterRig rig;
    rig.options.dedicated_max = 1;
    rig.cluster_options.refresh_interval_ms = 50;
    const std::string pop = "BLPOP " + ClusterRig::key_of(kSlots - 1) + " 0";
    rig.silence(pop);
    rig.other.answers[pop] = "";
    FakeClient& holder = rig.make_cluster_ready();
    FakeClient& refused = rig.add_client();
    holder.ask({pop});
    REQUIRE(run_until(rig.loop, [&] { return rig.other.times_asked(pop) == 1; }));
    rig.options.queue_timeout_ms = 50;
    refused.ask({pop});
    REQUIRE(rig.run_until_end(refused, "(upstream.dedicated_max)\r\n"));
    const uint16_t number = rig.cluster->owner(kSlots - 1).coherence().number();
    holder.session.abort();
    for (FakeValkey* const fake : {&rig.valkey, &rig.other}) {
        fake->answers["CLUSTER SLOTS"] =
            "*1\r\n" + ClusterRig::range(0, kSlots - 1, ClusterRig::kFirstPort);
    }
    rig.cluster->doubt();
    REQUIRE(run_until(rig.loop, [&] { return rig.cluster->find(number) == nullptr; }));
    refused.ask({"BLPOP " + ClusterRig::key_of(0) + " 1"});
    CHECK(rig.run_until_end(refused, "+BLPOP " + ClusterRig::key_of(0) + " 1\r\n"));
    refused.session.abort();
}

TEST_CASE("cluster: a subscriber whose command goes another way in the end has not begun it") {
    ClusterRig rig;
    const std::string without = rig.valkey.answers["COMMAND"];
    const std::string with = table_with_ssubscribe(without);
    const std::string first = ClusterRig::key_of(kSlot);
    const std::string second = ClusterRig::key_of(kSlot + 1);
    rig.valkey.answers["COMMAND"] = with;
    rig.silence("ssubscribe " + first);
    rig.silence("UNWATCH");
    rig.valkey.answers["sunsubscribe " + first] =
        fmt::format(">3\r\n$12\r\nsunsubscribe\r\n${}\r\n{}\r\n:0\r\n", first.size(), first);
    rig.valkey.answers["ssubscribe " + second] = ssubscribed(second);
    FakeClient& client = rig.make_cluster_ready();
    const auto set_table = [&](const std::string& table) {
        rig.valkey.answers["COMMAND"] = table;
        rig.valkey.close(rig.valkey.peer_of("COMMAND"));
        REQUIRE(run_until(rig.loop, [&] {
            const CommandTable& commands = rig.node->catalog().commands();
            return (commands.find_name("ssubscribe") == nullptr) == (table == without);
        }));
    };
    client.ask({"SSUBSCRIBE " + first});
    REQUIRE(rig.run_until_asked("ssubscribe " + first, 1));
    set_table(without);
    client.socket.written.clear();
    rig.valkey.answers["UNWATCH"] = "+OK\r\n";
    rig.valkey.send(rig.valkey.peer_of("ssubscribe " + first), ssubscribed(first) + "+OK\r\n");
    REQUIRE(run_until(rig.loop, [&] { return !client.output().empty(); }));
    CHECK(client.output() != ssubscribed(first));
    set_table(with);
    client.socket.written.clear();
    client.ask({"SSUBSCRIBE " + second});
    CHECK(rig.run_until_end(client, ssubscribed(second)));
}

TEST_CASE("cluster: a feed that has been silent for too long is given up for another") {
    ClusterRig rig;
    rig.options.request_timeout_ms = 100;
    rig.options.tombstone_timeout_ms = 100;
    const std::string channel = ClusterRig::key_of(kSlot);
    const std::string subscribe = "ssubscribe " + channel;
    const std::string confirmation = ssubscribed(channel);
    std::string& table = rig.valkey.answers["COMMAND"];
    table = table_with_ssubscribe(table);
    rig.valkey.answers["UNWATCH"] = "+OK\r\n";
    rig.valkey.answers[subscribe] = confirmation;
    FakeClient& client = rig.make_cluster_ready();
    client.ask({"SSUBSCRIBE " + channel});
    REQUIRE(rig.run_until_end(client, confirmation));
    // The server has taken it away, and says nothing to who asks for it anew.
    rig.silence(subscribe);
    rig.silence("UNWATCH");
    const size_t former = rig.valkey.peer_of(subscribe);
    rig.valkey.send(former, fmt::format(">3\r\n$12\r\nsunsubscribe\r\n${}\r\n{}\r\n:0\r\n",
                                        channel.size(), channel));
    REQUIRE(rig.run_until_asked(subscribe, 2));
    CHECK(rig.valkey.peer_of(subscribe) == former);
    rig.valkey.answers[subscribe] = confirmation;
    rig.valkey.answers["UNWATCH"] = "+OK\r\n";
    REQUIRE(rig.run_until_asked(subscribe, 3));
    CHECK(rig.valkey.peer_of(subscribe) != former);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.clients_moved_subscriber_total == 1; }));
    CHECK_FALSE(rig.valkey.is_open(former));
}

}  // namespace nearkey::cluster_session_test
