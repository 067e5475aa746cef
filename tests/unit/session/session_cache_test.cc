// What a session answers from the near cache, and what it does not.
#include "nearkey/session/session.h"

#include "cached_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_cache_test {
namespace {

TEST_CASE("session: what is stored is answered at once") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.store(kQuery);
    const std::string before = client.output();
    client.ask({"GET k"});
    CHECK(rig.run_until_output(client, before + kStored));
    CHECK(rig.valkey.times_asked("GET k") == 0);
}

TEST_CASE(
    "session: a read that comes alone is answered, cut anywhere, and its client ends behind it") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.store(kQuery);
    const std::string input = encoded("GET k");
    for (size_t cut = 0; cut < input.size(); ++cut) {
        CAPTURE(cut);
        const std::string before = client.output();
        if (cut > 0) client.send(input.substr(0, cut));
        client.send(input.substr(cut));
        // What comes before the turn is over stands behind it.
        client.ask({"GET other"});
        CHECK(client.output() == before);
        CHECK(rig.run_until_output(client, before + kStored + "+GET other\r\n"));
    }
    const std::string before = client.output();
    client.send(input);
    client.session.on_end();
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == before + kStored);
    CHECK(rig.valkey.times_asked("GET k") == 0);
}

TEST_CASE("session: of reads that come together each is answered, cut anywhere") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.store(kQuery);
    std::string input;
    std::string expected;
    for (int i = 0; i < 70; ++i) {
        input += encoded(i % 10 == 9 ? "GET" : "GET k");  // Valkey itself says what is wrong.
        expected += i % 10 == 9 ? "+GET\r\n" : kStored;
    }
    REQUIRE(input.size() > 1024);
    for (size_t cut = 0; cut < input.size(); cut += 7) {
        CAPTURE(cut);
        const std::string before = client.output();
        if (cut > 0) client.send(input.substr(0, cut));
        client.send(input.substr(cut));
        CHECK(rig.run_until_output(client, before + expected));
    }
    CHECK(rig.valkey.times_asked("GET k") == 0);
}

TEST_CASE("session: what was stored while a read was in flight counts, too, if it is not stored") {
    CachedRig rig;
    FakeClient& client = rig.make_overtaking();
    const std::string before = client.output();
    const NearCache::Write write = rig.cache->begin_write("k", Loop::boot_ms());
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.cache->end_write(write);
    rig.store(kQuery);
    const size_t peer = rig.valkey.peer_of("GET k");
    rig.valkey.send(peer, kNew);
    rig.run_until_read(peer);
    CHECK(client.output() == before);
    // The news of the change.
    rig.valkey.send(peer, kNews);
    rig.answer_pings();
    CHECK(rig.run_until_output(client, before + kNew));
    CHECK(rig.outcome() == NearCache::Outcome::Miss);
}

TEST_CASE("session: what shows which keys there are may be newer than what is stored") {
    CachedRig rig;
    FakeClient& client = rig.make_overtaking();
    rig.store(kQuery);
    const std::string before = client.output();
    rig.silence("DBSIZE");
    client.ask({"DBSIZE"});
    REQUIRE(rig.run_until_asked("DBSIZE", 1));
    const size_t peer = rig.valkey.peer_of("DBSIZE");
    rig.valkey.send(peer, ":0\r\n");
    rig.run_until_read(peer);
    CHECK(client.output() == before);
    rig.valkey.send(peer, kNews);
    rig.answer_pings();
    CHECK(rig.run_until_output(client, before + ":0\r\n"));
    CHECK(rig.outcome() == NearCache::Outcome::Miss);
}

TEST_CASE("session: what is stored answers nobody whose SELECT has failed on the way") {
    CachedRig rig;
    rig.options.connections_max = 2;
    FakeClient& client = rig.make_cached();
    rig.store(kQuery);
    const std::string before = client.output();
    client.ask({"SELECT 3", "GET k", "SELECT 0", "GET k"});
    CHECK(rig.run_until_output(
        client, before +
                    "-ERR nearkey has no connection left for another database or protocol "
                    "(upstream.connections_max)\r\n"
                    "-UPSTREAMDOWN the database could not be selected; not sent\r\n"
                    "+OK\r\n" +
                    kStored));
}

TEST_CASE("session: a reply behind a large one is behind no news of what is stored") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    const std::string large(size_t{1} << 20, 'x');
    rig.valkey.answers["GET large"] = "$" + std::to_string(large.size()) + "\r\n" + large + "\r\n";
    const uint64_t connections = rig.metrics.upstream_connections;
    client.ask({"GET large"});
    REQUIRE(run_until(rig.loop, [&] { return client.output().size() > large.size(); }));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_connections > connections; }));
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.silence("PING");
    rig.store(kQuery);
    const std::string before = client.output();
    rig.reply("GET k", kNew);
    CHECK(client.output() == before);
    CHECK(rig.metrics.near_cache_proofs_total == 1);
}

TEST_CASE(
    "session: what may be newer than what is stored of its key is stored once that is proven") {
    for (const bool is_changed : {false, true}) {
        CachedRig rig;
        FakeClient& client = rig.make_overtaking();
        rig.store(kOther);
        const std::string before = client.output();
        client.ask({"GET k"});
        REQUIRE(rig.run_until_asked("GET k", 1));
        const size_t peer = rig.valkey.peer_of("GET k");
        rig.valkey.send(peer, kNew);
        rig.run_until_read(peer);
        CHECK(client.output() == before);
        // Nobody may be served this one, and next the other.
        CHECK(rig.outcome() == NearCache::Outcome::Pending);
        if (is_changed) rig.cache->invalidate("k", InvalidationCause::Push, Loop::boot_ms());
        rig.answer_pings();
        CHECK(rig.run_until_output(client, before + kNew));
        CHECK((rig.outcome() == NearCache::Outcome::Miss) == is_changed);
        rig.cache->check_invariants();
    }
}

TEST_CASE("session: who leaves before the proof stores nothing") {
    CachedRig rig;
    FakeClient& client = rig.make_overtaking();
    rig.store(kOther);
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    const size_t peer = rig.valkey.peer_of("GET k");
    rig.valkey.send(peer, kNew);
    rig.run_until_read(peer);
    REQUIRE(rig.outcome() == NearCache::Outcome::Pending);
    client.session.abort();
    CHECK(rig.outcome() == NearCache::Outcome::Miss);
    rig.answer_pings();
    rig.settle();
    CHECK(rig.outcome() == NearCache::Outcome::Miss);
    rig.cache->check_invariants();
}

TEST_CASE("session: who waits for another client's read waits no longer than for its own") {
    CachedRig rig;
    rig.options.request_timeout_ms = 50;
    FakeClient& first = rig.make_cached();
    FakeClient& second = rig.add_cached();
    rig.silence("GET k");
    first.ask({"GET k"});
    second.ask({"GET k"});
    REQUIRE(run_until(
        rig.loop, [&] { return second.output().find("-UPSTREAMTIMEOUT") != std::string::npos; }));
    CHECK(second.output().ends_with(
        "-UPSTREAMTIMEOUT Valkey did not answer another client's equal read in time\r\n"));
    CHECK(first.output().find("-UPSTREAMTIMEOUT") != std::string::npos);
    // On a busy machine 50 ms are too short for a question of nearkey's own, too.
    CHECK(rig.metrics.upstream_timeout_total >= 2);
    CHECK(rig.valkey.times_asked("GET k") == 1);
}

TEST_CASE("session: a client that has waited for a read in vain waits for the next one, too") {
    CachedRig rig;
    FakeClient& first = rig.make_cached();
    FakeClient& second = rig.add_cached();
    rig.silence("GET k");
    first.ask({"GET k"});
    second.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    // An error is not stored: the second client reads by itself.
    rig.reply("GET k", "-ERR once\r\n");
    REQUIRE(rig.run_until_asked("GET k", 2));
    rig.reply("GET k", kNew);
    REQUIRE(rig.run_until_end(second, kNew));
    rig.silence("GET j");
    first.ask({"GET j"});
    second.ask({"GET j"});
    REQUIRE(rig.run_until_asked("GET j", 1));
    rig.settle();
    CHECK(rig.valkey.times_asked("GET j") == 1);
}

TEST_CASE("session: EXPLAIN tells what is being read, and what is stored but not proven") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    FakeClient& other = rig.add_client();
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    other.ask({"HELLO 3", "NEARKEY EXPLAIN GET k"});
    REQUIRE(
        run_until(rig.loop, [&] { return other.output().find("pending") != std::string::npos; }));
    rig.reply("GET k", kNew);
    REQUIRE(rig.run_until_end(client, kNew));
    const CacheQuery query{.key = "u", .arguments = {}, .command = 3, .database = 0};
    const NearCache::SourceId source = rig.cache->open_source(Loop::boot_ms());
    rig.cache->commit(rig.cache->begin_fill(query, source), kStored, UINT64_MAX, Loop::boot_ms());
    rig.cache->suspend_source(source, Loop::boot_ms());
    other.ask({"NEARKEY EXPLAIN GET u"});
    CHECK(run_until(rig.loop, [&] {
        return other.output().find("unproven") != std::string::npos &&
               other.output().find("Valkey has proven nothing") != std::string::npos;
    }));
}

}  // namespace
TEST_CASE("session: EXEC writes the keys of its own transaction alone") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.valkey.answers["EXEC"] = "*1\r\n+OK\r\n";
    rig.begin_transaction(client, "SET k new");
    client.ask({"EXEC"});
    REQUIRE(rig.run_until_end(client, "*1\r\n+OK\r\n"));
    rig.store(kQuery);
    rig.begin_transaction(client, "SET other new");
    client.ask({"EXEC"});
    REQUIRE(rig.run_until_end(client, "*1\r\n+OK\r\n"));
    CHECK(rig.outcome() == NearCache::Outcome::Hit);
}

TEST_CASE("session: behind a blocking command in WATCH a client that sends no more still reads") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.valkey.answers["WATCH a"] = "+OK\r\n";
    rig.valkey.answers["BLPOP q 1"] = "*-1\r\n";
    client.ask({"WATCH a", "BLPOP q 1"});
    REQUIRE(rig.run_until_end(client, "*-1\r\n"));
    rig.silence("GET b");
    client.ask({"GET b"});
    REQUIRE(rig.run_until_asked("GET b", 1));
    client.session.on_end();
    CHECK_FALSE(rig.is_ended(client));
    rig.reply("GET b", "+late\r\n");
    CHECK(rig.run_until_end(client, "+late\r\n"));
}

}  // namespace nearkey::session_cache_test
