// What a session answers from the near cache, and what it does not.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey {
namespace {

// GET, HELLO and DBSIZE as Valkey 8.0 tells of them in COMMAND, without tips.
const std::string kCommands =
    "*3\r\n"
    "*10\r\n$6\r\ndbsize\r\n:1\r\n*2\r\n+readonly\r\n+fast\r\n:0\r\n:0\r\n:0\r\n"
    "*3\r\n+@keyspace\r\n+@read\r\n+@fast\r\n*0\r\n*0\r\n*0\r\n"
    "*10\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n"
    "*1\r\n*6\r\n$5\r\nflags\r\n*1\r\n+RO\r\n"
    "$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n"
    "$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n"
    "$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n"
    "$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n"
    "$5\r\nlimit\r\n:0\r\n*0\r\n"
    "*10\r\n$5\r\nhello\r\n:-1\r\n*1\r\n+fast\r\n:0\r\n:0\r\n:0\r\n"
    "*0\r\n*0\r\n*0\r\n*0\r\n";
// GET in RESP3.
const CacheQuery kQuery{.key = "k", .arguments = {}, .command = 3, .database = 0};
const std::string kStored = "$3\r\nold\r\n";

// A RESP3 client that the near cache works for.
FakeClient& make_cached(SessionRig& rig) {
    rig.cache_options.max_staleness_ms = 60'000;
    rig.cache = std::make_unique<NearCache>(rig.cache_options, rig.metrics, 1);
    rig.valkey.answers = {{"COMMAND", kCommands}, {"CLIENT TRACKING ON OPTOUT", "+OK\r\n"}};
    FakeClient& client = rig.make_ready();
    client.ask({"HELLO 3", "GET first"});
    REQUIRE(rig.run_until_asked("CLIENT TRACKING ON OPTOUT", 1));
    rig.run_until_read(rig.valkey.peer_of("CLIENT TRACKING ON OPTOUT"));
    REQUIRE(rig.metrics.near_cache_tracking == 1);
    REQUIRE(client.output().ends_with("+GET first\r\n"));
    return client;
}

// As if another connection had read it just now.
void store(SessionRig& rig, const CacheQuery& query) {
    const NearCache::SourceId source = rig.cache->open_source(Loop::boot_ms());
    const NearCache::Ticket ticket = rig.cache->begin_fill(query, source);
    REQUIRE(ticket != 0);
    rig.cache->commit(ticket, kStored, UINT64_MAX, Loop::boot_ms());
    REQUIRE(rig.cache->find(query, Loop::boot_ms()).outcome == NearCache::Outcome::Hit);
}

const std::string kNew = "$3\r\nnew\r\n";
// Another command's reply of the same key.
const CacheQuery kOther{.key = "k", .arguments = "x", .command = 9, .database = 0};

// Two connections of one kind, so that replies may overtake news, and proofs only when they are
// answered.
FakeClient& make_overtaking(SessionRig& rig) {
    rig.options.connections = 2;
    rig.options.heartbeat_interval_ms = 3'600'000;
    FakeClient& client = make_cached(rig);
    rig.add_client().ask({"HELLO 3", "GET second"});
    REQUIRE(rig.run_until_asked("CLIENT TRACKING ON OPTOUT", 2));
    rig.run_until_read(rig.valkey.peer_of("CLIENT TRACKING ON OPTOUT"));
    rig.silence("PING");
    rig.silence("GET k");
    rig.valkey.answers["PTTL k"] = ":-1\r\n";
    return client;
}

// To all that are told of changes, and to the receiver.
void answer_pings(SessionRig& rig) {
    for (size_t peer = 0; peer < rig.valkey.peer_count(); ++peer) {
        const std::string& hello = rig.valkey.asked(peer).front();
        if (rig.valkey.is_open(peer) && hello.starts_with("HELLO 3"))
            rig.valkey.send(peer, "+PONG\r\n");
    }
}

NearCache::Outcome outcome(SessionRig& rig) {
    return rig.cache->find(kQuery, Loop::boot_ms()).outcome;
}

TEST_CASE("session: what is stored is answered at once") {
    SessionRig rig;
    FakeClient& client = make_cached(rig);
    store(rig, kQuery);
    const std::string before = client.output();
    client.ask({"GET k"});
    CHECK(rig.run_until_output(client, before + kStored));
    CHECK(rig.valkey.times_asked("GET k") == 0);
}

TEST_CASE(
    "session: a read that comes alone is answered, cut anywhere, and its client ends behind it") {
    SessionRig rig;
    FakeClient& client = make_cached(rig);
    store(rig, kQuery);
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
    SessionRig rig;
    FakeClient& client = make_cached(rig);
    store(rig, kQuery);
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

TEST_CASE("session: no hit follows a read in flight whose fill is void, it may be older") {
    SessionRig rig;
    FakeClient& client = make_cached(rig);
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.cache->invalidate("k", InvalidationCause::Push, Loop::boot_ms());
    store(rig, kQuery);
    client.ask({"GET k"});
    CHECK(rig.run_until_asked("GET k", 2));
}

TEST_CASE("session: what was stored while a read was in flight counts, too, if it is not stored") {
    SessionRig rig;
    FakeClient& client = make_overtaking(rig);
    const std::string before = client.output();
    const NearCache::Write write = rig.cache->begin_write("k", Loop::boot_ms());
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.cache->end_write(write);
    store(rig, kQuery);
    const size_t peer = rig.valkey.peer_of("GET k");
    rig.valkey.send(peer, kNew);
    rig.run_until_read(peer);
    CHECK(client.output() == before);
    // The news of the change.
    rig.valkey.send(peer, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    answer_pings(rig);
    CHECK(rig.run_until_output(client, before + kNew));
    CHECK(outcome(rig) == NearCache::Outcome::Miss);
}

TEST_CASE("session: what shows which keys there are may be newer than what is stored") {
    SessionRig rig;
    FakeClient& client = make_overtaking(rig);
    store(rig, kQuery);
    const std::string before = client.output();
    rig.silence("DBSIZE");
    client.ask({"DBSIZE"});
    REQUIRE(rig.run_until_asked("DBSIZE", 1));
    const size_t peer = rig.valkey.peer_of("DBSIZE");
    rig.valkey.send(peer, ":0\r\n");
    rig.run_until_read(peer);
    CHECK(client.output() == before);
    rig.valkey.send(peer, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    answer_pings(rig);
    CHECK(rig.run_until_output(client, before + ":0\r\n"));
    CHECK(outcome(rig) == NearCache::Outcome::Miss);
}

TEST_CASE("session: a change of way is answered at once, and what comes next waits for a proof") {
    SessionRig rig;
    rig.options.heartbeat_interval_ms = 3'600'000;
    FakeClient& client = make_cached(rig);
    store(rig, kOther);
    rig.silence("PING");
    const std::string before = client.output();
    client.ask({"HELLO 2"});
    rig.settle();
    CHECK(rig.metrics.near_cache_proofs_total == 1);
    const std::string after = client.output();
    CHECK(after.size() > before.size());
    client.ask({"GET z"});
    rig.settle();
    CHECK(client.output() == after);
    CHECK(rig.valkey.times_asked("GET z") == 0);
    answer_pings(rig);
    CHECK(rig.run_until_output(client, after + "+GET z\r\n"));
    // What it was shown since is nearkey's own words.
    store(rig, kOther);
    const uint64_t proofs = rig.metrics.near_cache_proofs_total;
    FakeClient& newcomer = rig.add_client();
    newcomer.ask({"HELLO 3", "HELLO 2"});
    rig.settle();
    CHECK(rig.metrics.near_cache_proofs_total == proofs);
}

TEST_CASE("session: a reply over a lease is behind no news of what is stored") {
    SessionRig rig;
    rig.options.heartbeat_interval_ms = 3'600'000;
    FakeClient& client = make_cached(rig);
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
    store(rig, kQuery);
    const std::string before = client.output();
    const size_t peer = rig.valkey.peer_of("GET k");
    rig.valkey.send(peer, kNew);
    rig.run_until_read(peer);
    CHECK(client.output() == before);
    CHECK(rig.metrics.near_cache_proofs_total == 1);
}

TEST_CASE(
    "session: what may be newer than what is stored of its key is stored once that is proven") {
    for (const bool is_changed : {false, true}) {
        SessionRig rig;
        FakeClient& client = make_overtaking(rig);
        store(rig, kOther);
        const std::string before = client.output();
        client.ask({"GET k"});
        REQUIRE(rig.run_until_asked("GET k", 1));
        const size_t peer = rig.valkey.peer_of("GET k");
        rig.valkey.send(peer, kNew);
        rig.run_until_read(peer);
        CHECK(client.output() == before);
        // Nobody may be served this one, and next the other.
        CHECK(outcome(rig) == NearCache::Outcome::Pending);
        if (is_changed) rig.cache->invalidate("k", InvalidationCause::Push, Loop::boot_ms());
        answer_pings(rig);
        CHECK(rig.run_until_output(client, before + kNew));
        CHECK((outcome(rig) == NearCache::Outcome::Miss) == is_changed);
        rig.cache->check_invariants();
    }
}

TEST_CASE("session: who leaves before the proof stores nothing") {
    SessionRig rig;
    FakeClient& client = make_overtaking(rig);
    store(rig, kOther);
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    const size_t peer = rig.valkey.peer_of("GET k");
    rig.valkey.send(peer, kNew);
    rig.run_until_read(peer);
    REQUIRE(outcome(rig) == NearCache::Outcome::Pending);
    client.session.abort();
    CHECK(outcome(rig) == NearCache::Outcome::Miss);
    answer_pings(rig);
    rig.settle();
    CHECK(outcome(rig) == NearCache::Outcome::Miss);
    rig.cache->check_invariants();
}

}  // namespace
}  // namespace nearkey
