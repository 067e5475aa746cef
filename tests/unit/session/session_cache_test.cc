// What a session answers from the near cache, and what it does not.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey {
namespace {

// GET and HELLO as Valkey 8.0 tells of them in COMMAND, without tips and categories.
const std::string kCommands =
    "*2\r\n"
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
void store(SessionRig& rig) {
    const NearCache::SourceId source = rig.cache->open_source(Loop::boot_ms());
    const NearCache::Ticket ticket = rig.cache->begin_fill(kQuery, source);
    REQUIRE(ticket != 0);
    rig.cache->commit(ticket, kStored, UINT64_MAX, Loop::boot_ms());
    REQUIRE(rig.cache->find(kQuery, Loop::boot_ms()).outcome == NearCache::Outcome::Hit);
}

TEST_CASE("session: what is stored is answered at once") {
    SessionRig rig;
    FakeClient& client = make_cached(rig);
    store(rig);
    const std::string before = client.output();
    client.ask({"GET k"});
    CHECK(rig.run_until_output(client, before + kStored));
    CHECK(rig.valkey.times_asked("GET k") == 0);
}

TEST_CASE("session: no hit follows a read in flight whose fill is void, it may be older") {
    SessionRig rig;
    FakeClient& client = make_cached(rig);
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.cache->invalidate("k", InvalidationCause::Push, Loop::boot_ms());
    store(rig);
    client.ask({"GET k"});
    CHECK(rig.run_until_asked("GET k", 2));
}

}  // namespace
}  // namespace nearkey
