// A SessionRig whose upstream is a cluster of two fakes: `valkey` is the seed and owns the lower
// half of the slots, `other` the upper one. Both answer as one server does, unless a test says
// otherwise.
#pragma once

#include "nearkey/resp/slot.h"
#include "nearkey/upstream/cluster.h"

#include "session_rig.h"

#include <doctest/doctest.h>

#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

namespace nearkey {

struct ClusterRig : SessionRig, private ClusterEvents {
    static constexpr uint16_t kFirstPort = 7001;
    static constexpr uint16_t kOtherPort = 7002;
    static constexpr uint16_t kReplicaPort = 7003;
    static constexpr uint16_t kSecondPort = 7004;

    ClusterRig() {
        // No beat comes, unless a test wants some.
        options.heartbeat_interval_ms = 3'600'000;
        cache_options.max_staleness_ms = 60'000;
        std::ifstream commands("tests/simulation/command_reply.resp", std::ios::binary);
        const std::string table{std::istreambuf_iterator<char>(commands), {}};
        for (FakeValkey* const fake : {&valkey, &other}) {
            fake->answers = {{"COMMAND", table}, {"CLIENT TRACKING ON OPTOUT", "+OK\r\n"}};
            fake->answers["CLUSTER SLOTS"] =
                fmt::format("*2\r\n{}{}", range(0, kSlots / 2 - 1, kFirstPort),
                            range(kSlots / 2, kSlots - 1, kOtherPort));
        }
    }
    ~ClusterRig() {
        clients.clear();
        if (cluster != nullptr) cluster->stop();
        node.reset();
    }
    // A slot of the lower half is the other's from now on; `command` is sent on.
    void move_to_other(uint16_t slot, const std::string& command) {
        for (FakeValkey* const fake : {&valkey, &other}) {
            fake->answers["CLUSTER SLOTS"] = fmt::format(
                "*4\r\n{}{}{}{}", range(0, slot - 1, kFirstPort), range(slot, slot, kOtherPort),
                range(slot + 1, kSlots / 2 - 1, kFirstPort),
                range(kSlots / 2, kSlots - 1, kOtherPort));
        }
        valkey.answers[command] = sent_on("MOVED", slot, kOtherPort);
    }
    static std::string range(int first, int last, uint16_t port) {
        const std::string id = fmt::format("{:040}", port);
        return fmt::format("*3\r\n:{}\r\n:{}\r\n*3\r\n$4\r\nhost\r\n:{}\r\n$40\r\n{}\r\n", first,
                           last, port, id);
    }
    // A key of each half, and the words that send its slot on to a port.
    static std::string key_of(uint16_t slot) { return "{" + tag_of(slot) + "}"; }
    static std::string sent_on(std::string_view word, uint16_t slot, uint16_t port) {
        return fmt::format("-{} {} host:{}\r\n", word, slot, port);
    }

    FakeClient& make_cluster_ready() {
        cache = std::make_unique<NearCache>(cache_options, metrics, 1);
        cluster = std::make_unique<Cluster>(Cluster::Parts{
            .loop = loop,
            .metrics = metrics,
            .log = log,
            .scratch = scratch,
            .events = *this,
            .make_target =
                [this](const UpstreamTarget&, const Endpoint& endpoint) {
                    UpstreamUrl at = url;
                    at.path = directory / (endpoint.port == kOtherPort     ? "other"
                                           : endpoint.port == kReplicaPort ? "replica"
                                           : endpoint.port == kSecondPort  ? "second"
                                                                           : "valkey");
                    at.host = endpoint.host;
                    at.port = endpoint.port;
                    return std::make_unique<UpstreamTarget>(at, nullptr);
                },
            .options = options,
            .cluster_options = cluster_options,
            .cache = cache.get(),
            .own_writes = own_writes.get()});
        node = std::make_unique<Node>(Node::Parts{.loop = loop,
                                                  .metrics = metrics,
                                                  .log = log,
                                                  .scratch = scratch,
                                                  .events = *this,
                                                  .cache = cache.get(),
                                                  .redirects = cluster.get(),
                                                  .number = Cluster::kSeed},
                                      options, std::make_unique<UpstreamTarget>(url, nullptr));
        node->coherence().share_cache(cluster->coherence().proofs(), false);
        node->start();
        cluster->start(*node);
        REQUIRE(run_until(
            loop, [this] { return node->health().is_ready && cluster->serves() && serves_all(); }));
        context = std::make_unique<SessionContext>(SessionContext{.loop = loop,
                                                                  .limits = limits,
                                                                  .metrics = metrics,
                                                                  .log = log,
                                                                  .node = *node,
                                                                  .events = *this,
                                                                  .encoded = {}});
        context->cluster = cluster.get();
        context->ledgers.cluster = cluster.get();
        context->ledgers.cache = cache.get();
        context->ledgers.own_writes = own_writes.get();
        context->expected_from_bytes = 0;
        return add_cluster_client();
    }
    bool serves_all() {
        size_t ready = 0;
        cluster->for_each([&](Node& member) { ready += member.health().is_ready ? 1 : 0; });
        return ready == 2;
    }
    // In RESP3, and told of changes by both nodes.
    FakeClient& add_cluster_client() {
        FakeClient& client = add_client();
        const std::string lower = "GET " + key_of(0);
        const std::string upper = "GET " + key_of(kSlots - 1);
        client.ask({"HELLO 3", lower, upper});
        REQUIRE(run_until_end(client, "+" + upper + "\r\n"));
        REQUIRE(run_until(loop, [&] { return is_tracked(0) && is_tracked(kSlots - 1); }));
        return client;
    }
    bool is_tracked(uint16_t slot) {
        const Connection* const connection =
            cluster->owner(slot).shared().first(Protocol::Resp3, 0);
        return connection != nullptr && connection->tracking().is_on();
    }
    bool run_until_end(const FakeClient& client, const std::string& expected) {
        return run_until(loop, [&] { return client.output().ends_with(expected); });
    }
    CacheQuery get(std::string_view key) const {
        return {.key = key, .arguments = {}, .command = 3, .database = 0};
    }
    NearCache::Explanation explain(std::string_view key) {
        return cache->explain(get(key), Loop::boot_ms());
    }
    NearCache::Outcome outcome(std::string_view key) { return explain(key).outcome; }
    // Reads it until it is stored; its reply is that of the fakes.
    void store(FakeClient& client, const std::string& key, const std::string& ttl = ":-1\r\n") {
        for (FakeValkey* const fake : {&valkey, &other})
            fake->answers["PTTL " + key] = ttl;
        REQUIRE(run_until(loop, [&] {
            if (outcome(key) == NearCache::Outcome::Miss) client.ask({"GET " + key});
            return outcome(key) == NearCache::Outcome::Hit;
        }));
    }

    void on_serving_changed() override {}
    void on_credentials_refused() override {}

    ClusterOptions cluster_options;
    FakeValkey other{loop, directory / "other"};
    std::unique_ptr<OwnWrites> own_writes;  // null unless a test reads from replicas
    std::unique_ptr<Cluster> cluster;
};

}  // namespace nearkey
