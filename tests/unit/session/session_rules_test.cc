// One case for each rule of base/sabotage.h that a session keeps: it fails where its rule is broken
// (nearkey_rule_tests, run by tests/run_all.py).
#include "nearkey/session/session.h"

#include "../cache/segment_rig.h"
#include "cached_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_rules_test {
namespace {

using Outcome = NearCache::Outcome;

// Gives out a descriptor of no use.
struct FakeSegment final : SegmentSource {
    SegmentGrant hand_out() override {
        return {.descriptor = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)), .incarnation = 7};
    }
};

}  // namespace

TEST_CASE("rule own_write: a write invalidates its keys before it is sent") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.store(kQuery);
    rig.silence("SET k new");
    client.ask({"SET k new"});
    REQUIRE(rig.run_until_asked("SET k new", 1));
    CHECK(rig.outcome() == Outcome::Blocked);
}

TEST_CASE("rule fill_ticket: a reply is not stored if its key was invalidated meanwhile") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.valkey.answers["PTTL k"] = ":-1\r\n";
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.reply("GET k", kNews + kStored);
    REQUIRE(client.output().ends_with(kStored));
    CHECK(rig.outcome() == Outcome::Miss);
}

TEST_CASE("rule lease: what was not proven for max_staleness_ms is not served") {
    CachedRig rig;
    rig.make_cached();
    rig.store(kQuery);
    const uint64_t late_ms = Loop::boot_ms() + rig.cache_options.max_staleness_ms;
    CHECK(rig.cache->find(kQuery, late_ms).outcome == Outcome::Unproven);
}

TEST_CASE("rule database: what is stored of a key in one database is not served in another") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.store(kQuery);
    client.ask({"SELECT 1"});
    REQUIRE(rig.run_until_end(client, "+OK\r\n"));
    const size_t before = client.output().size();
    client.ask({"GET k"});
    REQUIRE(run_until(rig.loop, [&] { return client.output().size() > before; }));
    CHECK(client.output().ends_with("+GET k\r\n"));
}

// What is stored between the last command that is queued and EXEC is older than what that writes.
TEST_CASE("rule queued_write: what is queued in a transaction is written by its EXEC") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.begin_transaction(client, "SET k new");
    rig.store(kQuery);
    rig.valkey.answers["EXEC"] = "*1\r\n+OK\r\n";
    client.ask({"EXEC"});
    REQUIRE(rig.run_until_end(client, "*1\r\n+OK\r\n"));
    CHECK(rig.outcome() == Outcome::Miss);
}

TEST_CASE("rule queued_read: what EXEC shows of reads is behind no news of what is stored") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.begin_transaction(client, "GET k");
    rig.store(kQuery);
    rig.silence("PING");
    rig.silence("EXEC");
    const std::string before = client.output();
    client.ask({"EXEC"});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    rig.reply("EXEC", "*1\r\n" + kNew);
    CHECK(client.output() == before);
    CHECK(rig.metrics.near_cache_proofs_total == 1);
}

TEST_CASE("rule whole_read: so is what a whole transaction shows, where news may be overtaken") {
    CachedRig rig;
    FakeClient& client = rig.make_overtaking();
    rig.store(kQuery);
    rig.valkey.answers["MULTI"] = "+OK\r\n";
    rig.valkey.answers["GET k"] = "+QUEUED\r\n";
    rig.silence("EXEC");
    client.ask({"MULTI", "GET k", "EXEC"});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    REQUIRE(rig.metrics.transactions_whole_total == 1);
    rig.reply("EXEC", "*1\r\n" + kNew);
    REQUIRE_FALSE(client.output().ends_with(kNew));
    rig.reply("EXEC", kNews);
    rig.answer_pings();
    CHECK(rig.run_until_end(client, "*1\r\n" + kNew));
    CHECK(rig.outcome() == Outcome::Miss);
}

TEST_CASE("rule other_connection: a reply over a lease is behind no news of what is stored") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.valkey.answers["WATCH w"] = "+OK\r\n";
    client.ask({"WATCH w"});
    REQUIRE(rig.run_until_end(client, "+OK\r\n"));
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

TEST_CASE("rule unfilled_part: MGET may show something newer than what is stored of its keys") {
    CachedRig rig;
    FakeClient& client = rig.make_overtaking();
    rig.store({.key = "k", .arguments = {}, .command = 5, .database = 0});
    rig.valkey.answers["PTTL a"] = ":-1\r\n";
    rig.silence("MGET a k");
    const std::string before = client.output();
    client.ask({"MGET a k"});
    REQUIRE(rig.run_until_asked("MGET a k", 1));
    REQUIRE(rig.valkey.times_asked("PTTL a") == 1);
    REQUIRE(rig.valkey.times_asked("PTTL k") == 0);
    const std::string both = "*2\r\n$1\r\na\r\n" + kNew;
    rig.reply("MGET a k", both);
    REQUIRE(client.output() == before);
    rig.reply("MGET a k", kNews);
    rig.answer_pings();
    CHECK(rig.run_until_output(client, before + both));
    CHECK(rig.cache->entries() == 1);
}

TEST_CASE("rule ttl_sent: the time that a key has left counts from when it was asked for") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.silence("PTTL k");
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    const uint64_t asked_ms = Loop::boot_ms();
    REQUIRE(run_until(rig.loop, [&] { return Loop::boot_ms() > asked_ms + 20; }));
    rig.reply("GET k", ":20\r\n" + kStored);
    REQUIRE(client.output().ends_with(kStored));
    CHECK(rig.metrics.near_cache_stored_total == 0);
    CHECK(rig.metrics.near_cache_not_stored_total == 1);
}

// It may have run. Who looks whether it has must not be shown what was there before.
TEST_CASE("rule lost_script: what a lost script has written is not known") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.silence("EVAL x 0");
    client.ask({"EVAL x 0"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    rig.store(kQuery);
    rig.valkey.close(rig.valkey.peer_of("EVAL x 0"));
    REQUIRE(rig.run_until_end(client, "may have run\r\n"));
    CHECK(rig.outcome() == Outcome::Miss);
}

TEST_CASE("rule void_fill: no hit follows a read in flight whose fill is void, it may be older") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.silence("GET k");
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.cache->invalidate("k", InvalidationCause::Push, Loop::boot_ms());
    rig.store(kQuery);
    client.ask({"GET k"});
    rig.settle();
    CHECK(rig.valkey.times_asked("GET k") == 2);
}

TEST_CASE("rule way: a change of way is answered at once, what comes next waits for a proof") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    rig.store(kOther);
    rig.silence("PING");
    const std::string before = client.output();
    client.ask({"HELLO 2"});
    rig.settle();
    REQUIRE(rig.metrics.near_cache_proofs_total == 1);
    const std::string after = client.output();
    CHECK(after.size() > before.size());
    client.ask({"GET z"});
    rig.settle();
    CHECK(client.output() == after);
    CHECK(rig.valkey.times_asked("GET z") == 0);
    rig.answer_pings();
    CHECK(rig.run_until_output(client, after + "+GET z\r\n"));
    // What it was shown since is nearkey's own words.
    rig.store(kOther);
    const uint64_t proofs = rig.metrics.near_cache_proofs_total;
    FakeClient& newcomer = rig.add_client();
    newcomer.ask({"HELLO 3", "HELLO 2"});
    rig.settle();
    CHECK(rig.metrics.near_cache_proofs_total == proofs);
}

TEST_CASE("rule way: a client that was shown stored replies alone waits for a proof, too") {
    CachedRig rig;
    rig.make_cached();
    rig.store(kQuery);
    FakeClient& reader = rig.add_client();
    reader.ask({"HELLO 3", "GET k"});
    REQUIRE(rig.run_until_end(reader, kStored));
    REQUIRE(rig.valkey.times_asked("GET k") == 0);
    rig.silence("PING");
    const uint64_t proofs = rig.metrics.near_cache_proofs_total;
    reader.ask({"HELLO 2"});
    rig.settle();
    CHECK(rig.metrics.near_cache_proofs_total == proofs + 1);
}

TEST_CASE("rule segment_ahead: with readers of shared memory a RESP3 reply waits for a proof too") {
    CachedRig rig;
    FakeClient& client = rig.make_cached();
    const SegmentRig segment(SharedReplies::kSizeMin);
    rig.cache->shared_replies().begin(segment.memory(), {1, 1});
    // Read with RESP2: this client would not be served it over its socket.
    rig.store({.key = "k", .arguments = {}, .command = 2, .database = 0});
    rig.silence("PING");
    rig.silence("GET k");
    rig.valkey.answers["PTTL k"] = ":-1\r\n";
    const std::string before = client.output();
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.reply("GET k", kNew);
    CHECK(client.output() == before);
    rig.answer_pings();
    CHECK(rig.run_until_output(client, before + kNew));
    rig.cache->shared_replies().end();
}

TEST_CASE("rule segment_opened: shared memory comes behind a proof") {
    CachedRig rig;
    FakeSegment segment;
    rig.terms.shared_memory = true;
    FakeClient& client = rig.make_cached();
    rig.context->segment = &segment;
    rig.store(kQuery);
    rig.silence("PING");
    const std::string before = client.output();
    client.ask({"NEARKEY SHM"});
    rig.settle();
    CHECK(client.output() == before);
    rig.answer_pings();
    REQUIRE(run_until(rig.loop, [&] { return client.output().size() > before.size(); }));
    CHECK(client.output().starts_with(before + "+OK 1 0000000000000007 "));
    CHECK(client.socket.passed.get() >= 0);
}

TEST_CASE("rule early_reply: a reply that is here before its turn waits for it") {
    ReplyQueue queue;
    queue.open(3);
    for (const uint32_t ticket : {1U, 2U}) {
        queue.keep(ticket, ticket == 1 ? "+second\r\n" : "+third\r\n");
        queue.keep_end(ticket);
    }
    queue.close_first();
    const auto early = queue.early_first();
    REQUIRE(early);
    CHECK(early->bytes == "+second\r\n");
}

}  // namespace nearkey::session_rules_test
