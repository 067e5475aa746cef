// A SessionRig with a near cache, and a RESP3 client that it works for. What another connection has
// read is put into the cache directly.
#pragma once

#include "session_rig.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <string>

namespace nearkey {

// GET in RESP3, and another command of the same key.
inline const CacheQuery kQuery{.key = "k", .arguments = {}, .command = 3, .database = 0};
inline const CacheQuery kOther{.key = "k", .arguments = "x", .command = 9, .database = 0};
inline const std::string kStored = "$3\r\nold\r\n";
inline const std::string kNew = "$3\r\nnew\r\n";
inline const std::string kNews = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";

struct CachedRig : SessionRig {
    CachedRig() {
        // No beat comes, unless a test wants some.
        options.heartbeat_interval_ms = 3'600'000;
        cache_options.max_staleness_ms = 60'000;
        std::ifstream commands("tests/simulation/command_reply.resp", std::ios::binary);
        valkey.answers = {{"COMMAND", {std::istreambuf_iterator<char>(commands), {}}},
                          {"CLIENT TRACKING ON OPTOUT", "+OK\r\n"}};
    }
    FakeClient& make_cached() {
        cache = std::make_unique<NearCache>(cache_options, metrics, 1);
        FakeClient& client = make_ready();
        client.ask({"HELLO 3", "GET first"});
        REQUIRE(run_until_asked("CLIENT TRACKING ON OPTOUT", 1));
        run_until_read(valkey.peer_of("CLIENT TRACKING ON OPTOUT"));
        REQUIRE(metrics.near_cache_tracking == 1);
        REQUIRE(run_until_end(client, "+GET first\r\n"));
        return client;
    }
    // One more that has read, and is told of changes.
    FakeClient& add_cached() {
        FakeClient& client = add_client();
        client.ask({"HELLO 3", "GET second"});
        REQUIRE(run_until_end(client, "+GET second\r\n"));
        return client;
    }
    // Two connections of one kind, so that replies may overtake news, and proofs only when they are
    // answered.
    FakeClient& make_overtaking() {
        options.connections = 2;
        FakeClient& client = make_cached();
        add_client().ask({"HELLO 3", "GET second"});
        REQUIRE(run_until_asked("CLIENT TRACKING ON OPTOUT", 2));
        run_until_read(valkey.peer_of("CLIENT TRACKING ON OPTOUT"));
        silence("PING");
        silence("GET k");
        valkey.answers["PTTL k"] = ":-1\r\n";
        return client;
    }
    // As if another connection had read it just now.
    void store(const CacheQuery& query) {
        const NearCache::SourceId source = cache->open_source(Loop::boot_ms());
        const NearCache::Ticket ticket = cache->begin_fill(query, source);
        REQUIRE(ticket != 0);
        cache->commit(ticket, kStored, UINT64_MAX, Loop::boot_ms());
        REQUIRE(cache->find(query, Loop::boot_ms()).outcome == NearCache::Outcome::Hit);
    }
    NearCache::Outcome outcome() { return cache->find(kQuery, Loop::boot_ms()).outcome; }
    // To all that are told of changes, and to the receiver.
    void answer_pings() {
        for (size_t peer = 0; peer < valkey.peer_count(); ++peer) {
            const std::string& hello = valkey.asked(peer).front();
            if (valkey.is_open(peer) && hello.starts_with("HELLO 3"))
                valkey.send(peer, "+PONG\r\n");
        }
    }
    // The reply to a command that was not answered yet.
    void reply(const std::string& command, std::string_view bytes) {
        const size_t peer = valkey.peer_of(command);
        valkey.send(peer, bytes);
        run_until_read(peer);
    }
    bool run_until_end(const FakeClient& client, const std::string& expected) {
        return run_until(loop, [&] { return client.output().ends_with(expected); });
    }
    // Step by step, up to a command that is queued.
    void begin_transaction(FakeClient& client, const std::string& queued) {
        valkey.answers["MULTI"] = "+OK\r\n";
        valkey.answers[queued] = "+QUEUED\r\n";
        client.ask({"MULTI"});
        REQUIRE(run_until_end(client, "+OK\r\n"));
        client.ask({queued});
        REQUIRE(run_until_end(client, "+QUEUED\r\n"));
    }
};

}  // namespace nearkey
