// A ClusterRig in which the seed has a replica, for clients without the near cache that read from
// it. The primary and the replica say how far they are by `primary_offset` and `replica_offset`.
#pragma once

#include "cluster_rig.h"

#include <doctest/doctest.h>

#include <fmt/format.h>
#include <chrono>
#include <string>
#include <vector>

namespace nearkey {

struct ReplicaRig : ClusterRig {
    static constexpr uint16_t kSlot = 100;

    ReplicaRig() {
        own_writes = std::make_unique<OwnWrites>(Loop::boot_ms());
        terms.cache_use = CacheUse::Off;
        terms.reads_replicas = true;
        cluster_options.replica_lag_max_ms = 60'000;
        say_version("8.0.1");
        replica.answers["READONLY"] = "+OK\r\n";
        say_offsets(100, 100);
        say_replicas({kReplicaPort});
    }
    ~ReplicaRig() {
        clients.clear();
        if (cluster != nullptr) cluster->stop();
    }
    // Of the seed; there are `replica` and `second`.
    void say_replicas(const std::vector<uint16_t>& ports) {
        const auto server = [](uint16_t port) {
            return fmt::format("*3\r\n$4\r\nhost\r\n:{}\r\n$40\r\n{:040}\r\n", port, port);
        };
        std::string lower = fmt::format("*{}\r\n:0\r\n:{}\r\n", ports.size() + 3, kSlots / 2 - 1);
        lower += server(kFirstPort);
        for (const uint16_t port : ports)
            lower += server(port);
        for (FakeValkey* const fake : {&valkey, &other}) {
            fake->answers["CLUSTER SLOTS"] =
                fmt::format("*2\r\n{}{}", lower, range(kSlots / 2, kSlots - 1, kOtherPort));
        }
    }
    void say_version(std::string_view version) {
        const std::string fields =
            fmt::format("$6\r\nserver\r\n$6\r\nvalkey\r\n$7\r\nversion\r\n$5\r\n{}\r\n", version);
        replica.answers["HELLO 2"] = "*4\r\n" + fields;
        replica.answers["HELLO 3"] = "%2\r\n" + fields;
    }
    static std::string info(std::string_view rest) {
        const std::string text = fmt::format(
            "# Replication\r\n{}\r\nmaster_replid:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
            rest);
        return fmt::format("${}\r\n{}\r\n", text.size(), text);
    }
    static std::string primary_info(uint64_t offset) {
        return info(fmt::format("role:master\r\nmaster_repl_offset:{}", offset));
    }
    void say_offsets(uint64_t primary_offset, uint64_t replica_offset) {
        valkey.answers["INFO replication"] = primary_info(primary_offset);
        replica.answers["INFO replication"] = info(fmt::format(
            "role:slave\r\nmaster_link_status:up\r\nslave_repl_offset:{}", replica_offset));
    }
    // The primary says no more how far it is, so that no newer proof comes.
    void stop_proofs() {
        valkey.answers["INFO replication"] = primary_info(UINT32_MAX);
        settle_rounds();
    }
    void settle_rounds() {
        const size_t asked = replica.times_asked("INFO replication");
        REQUIRE(
            run_until(loop, [&] { return replica.times_asked("INFO replication") > asked + 2; }));
    }
    // A client in RESP2 whose reads of the lower half may go to the replica by now.
    FakeClient& make_read() {
        make_cluster_ready();
        FakeClient& client = add_client();
        wait_proven(client);
        return client;
    }
    void wait_proven(FakeClient& client) {
        const std::string probe = "GET " + key() + "probe";
        const size_t before = replica.times_asked(probe);
        for (int tries = 0; tries < 1000 && replica.times_asked(probe) == before; ++tries) {
            pass(5);
            ask(client, probe);
        }
        REQUIRE(replica.times_asked(probe) > before);
    }
    static std::string key() { return key_of(kSlot); }
    // Asks it, and waits for the reply.
    void ask(FakeClient& client, const std::string& command) {
        const std::string reply = "+" + command + "\r\n";
        const size_t before = client.output().size();
        client.ask({command});
        REQUIRE(run_until(loop, [&] { return client.output().size() > before; }));
        REQUIRE(client.output().substr(before) == reply);
    }
    void pass(uint64_t ms) {
        const uint64_t end_ms = Loop::boot_ms() + ms;
        REQUIRE(run_until(loop, [&] { return Loop::boot_ms() > end_ms; }));
    }

    FakeValkey replica{loop, directory / "replica"};
    FakeValkey second{loop, directory / "second"};
};

}  // namespace nearkey
