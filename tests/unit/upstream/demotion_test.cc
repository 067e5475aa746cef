// A connection whose server becomes a replica, or was silent for long.
#include "connection_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::demotion_test {
namespace {

const std::string kRedirect = "-REDIRECT 127.0.0.1:6379\r\n";
const std::string kIsReplica = "*2\r\n$4\r\nrole\r\n$7\r\nreplica\r\n";
const std::string kIsPrimary = "*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";

// GET k with the ticket 1 is in flight over a connection that is ready, and gets no answer yet.
void ask_in_vain(ConnectionRig& rig, Collector& receiver) {
    rig.valkey.answers["GET k"] = "";
    rig.make_ready();
    rig.send(receiver, 1, "GET k");
    REQUIRE(rig.run_until_asked("GET k", 1));
}

// Sends the bytes in two pieces, each of which is read before the next is there.
void send_cut(ConnectionRig& rig, const std::string& bytes, size_t cut) {
    rig.valkey.send(0, bytes.substr(0, cut));
    int looks = 0;
    run_until(rig.loop, [&] { return ++looks > 5; });
    rig.valkey.send(0, bytes.substr(cut));
}

}  // namespace

TEST_CASE("demotion: -REDIRECT, cut anywhere, reaches nobody: a read goes again") {
    for (size_t cut = 1; cut < kRedirect.size(); ++cut) {
        CAPTURE(cut);
        ConnectionRig rig;
        Collector receiver;
        ask_in_vain(rig, receiver);
        rig.valkey.answers.erase("GET k");
        send_cut(rig, kRedirect, cut);
        REQUIRE(rig.run_until_told(receiver, 2));
        CHECK(receiver.told == ToldWords{"1 void", "1 +GET k"});
        CHECK(rig.demoted == 1);
        CHECK(rig.metrics.upstream_lost_demoted_total == 1);
    }
}

TEST_CASE("demotion: a read that goes again for it may go again once more") {
    ConnectionRig rig;
    Collector receiver;
    ask_in_vain(rig, receiver);
    rig.valkey.send(0, kRedirect);
    REQUIRE(rig.run_until_asked("GET k", 2));
    SUBCASE("where another server is turned to") {
        UpstreamTarget other{rig.url, nullptr};
        rig.connection->redirect(other);
        rig.connection->dial();
        REQUIRE(rig.run_until_asked("GET k", 3));
        rig.valkey.send(2, "+GET k\r\n");
        REQUIRE(rig.run_until_told(receiver, 3));
        CHECK(receiver.told == ToldWords{"1 void", "1 void", "1 +GET k"});
        rig.connection->redirect(rig.target);
    }
    SUBCASE("but not where a connection is lost") {
        rig.valkey.close(1);
        REQUIRE(rig.run_until_told(receiver, 2));
        CHECK(receiver.told == ToldWords{"1 void", "1 failed UPSTREAMLOST"});
    }
}

TEST_CASE("demotion: a write that is redirected reads what a replica says to it") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["SET k v"] = "";
    rig.valkey.answers["SET k w"] = "";
    rig.make_ready();
    rig.send(receiver, 1, "SET k v", RequestKind::Write);
    rig.send(receiver, 2, "SET k w", RequestKind::Write);
    REQUIRE(rig.run_until_asked("SET k w", 1));
    rig.valkey.send(0, kRedirect);
    REQUIRE(rig.run_until_told(receiver, 2));
    // Of the second nobody can know: the server could be a primary again by then.
    CHECK(receiver.told == ToldWords{"1 failed READONLY", "2 failed UPSTREAMLOST"});
    CHECK(rig.valkey.times_asked("SET k v") == 1);
}

TEST_CASE("demotion: other errors pass as they come, cut anywhere") {
    const std::string error = "-REDIRECTED is no such word\r\n";
    for (size_t cut = 1; cut < error.size(); ++cut) {
        CAPTURE(cut);
        ConnectionRig rig;
        Collector receiver;
        ask_in_vain(rig, receiver);
        send_cut(rig, error, cut);
        REQUIRE(rig.run_until_told(receiver, 1));
        CHECK(receiver.told == ToldWords{"1 -REDIRECTED is no such word"});
        CHECK(rig.demoted == 0);
    }
}

TEST_CASE("demotion: a heartbeat that says replica proves nothing") {
    ConnectionRig rig;
    rig.make_ready();
    rig.connection->probe().send_heartbeat();
    REQUIRE(run_until(rig.loop, [&] { return rig.heartbeats.size() == 1; }));
    const uint64_t proven_ms = rig.connection->probe().proven_ms();
    CHECK(proven_ms > 0);
    rig.valkey.answers["HELLO"] = kIsReplica;
    rig.connection->probe().send_heartbeat();
    REQUIRE(run_until(rig.loop, [&] { return rig.demoted == 1; }));
    CHECK(rig.connection->probe().proven_ms() == proven_ms);
    CHECK(rig.heartbeats.size() == 1);
}

TEST_CASE("demotion: a server that is a replica from the start is what is wanted") {
    ConnectionRig rig;
    rig.valkey.answers["HELLO 2"] = kIsReplica;
    rig.valkey.answers["HELLO"] = kIsReplica;
    rig.make_ready();
    rig.connection->probe().send_heartbeat();
    REQUIRE(run_until(rig.loop, [&] { return rig.heartbeats.size() == 1; }));
    CHECK(rig.demoted == 0);
    CHECK(rig.connection->probe().is_replica());
}

TEST_CASE("demotion: what is held back goes in order, and behind what was sent before") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["HELLO"] = "";
    rig.valkey.answers["GET 1"] = "";
    rig.make_ready();
    rig.send(receiver, 1, "GET 1");
    rig.connection->probe().suspect();
    REQUIRE(rig.run_until_asked("GET 1", 1));
    rig.send(receiver, 2, "GET 2");
    rig.send(receiver, 3, "SET 3 v", RequestKind::Write);
    SUBCASE("where the server answers again") {
        rig.valkey.send(0, "+GET 1\r\n" + kIsPrimary);
        REQUIRE(run_until(rig.loop, [&] { return rig.trustworthy == 1; }));
        CHECK(rig.valkey.times_asked("GET 2") == 0);
        rig.connection->pipeline().let_go();
        REQUIRE(rig.run_until_told(receiver, 3));
        CHECK(receiver.told == ToldWords{"1 +GET 1", "2 +GET 2", "3 +SET 3 v"});
    }
    SUBCASE("where the connection is lost") {
        rig.valkey.answers.erase("GET 1");
        rig.valkey.close(0);
        REQUIRE(rig.run_until_told(receiver, 4));
        CHECK(receiver.told == ToldWords{"1 void", "1 +GET 1", "2 +GET 2", "3 +SET 3 v"});
    }
    CHECK(rig.valkey.times_asked("SET 3 v") == 1);
}

TEST_CASE("demotion: what is held back fills no queue, and leaves none") {
    ConnectionRig rig;
    Collector receiver;
    rig.options.queue_commands_max = 1;
    rig.valkey.answers["HELLO"] = "";
    rig.make_ready();
    rig.connection->probe().suspect();
    for (uint32_t ticket = 1; ticket <= 3; ++ticket)
        rig.send(receiver, ticket, "SET k v", RequestKind::Write);
    CHECK(receiver.told.empty());
    CHECK(rig.context.queued_commands == 0);
    CHECK(rig.context.queued_bytes == 0);
    CHECK(rig.metrics.queued == 3);
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 3));
    CHECK(receiver.told == ToldWords{"1 +SET k v", "2 +SET k v", "3 +SET k v"});
    CHECK(rig.context.queued_commands == 0);
    CHECK(rig.metrics.queued == 0);
    CHECK(rig.metrics.upstream_unsent_bytes == 0);
}

TEST_CASE("demotion: what is held back for too long fails, and was not sent") {
    ConnectionRig rig;
    Collector receiver;
    Collector patient;
    rig.options.request_timeout_ms = 20;
    rig.valkey.answers["HELLO"] = "";
    rig.make_ready();
    rig.connection->probe().suspect();
    rig.send(patient, 1, "BLPOP l 0", RequestKind::Blocking);
    rig.send(receiver, 2, "SET k v", RequestKind::Write);
    REQUIRE(run_until(rig.loop, [&] {
        rig.connection->expire(rig.loop.now_ms());
        return !receiver.told.empty();
    }));
    CHECK(receiver.told == ToldWords{"2 failed UPSTREAMTIMEOUT"});
    CHECK(receiver.last_error.ends_with("not sent"));
    CHECK(patient.told.empty());
    CHECK(rig.metrics.queued == 1);
    CHECK(rig.metrics.upstream_unsent_bytes == encoded("BLPOP l 0").size());
    rig.valkey.send(0, kIsPrimary);
    REQUIRE(run_until(rig.loop, [&] { return rig.trustworthy == 1; }));
    rig.connection->pipeline().let_go();
    REQUIRE(rig.run_until_told(patient, 1));
    CHECK(rig.valkey.times_asked("SET k v") == 0);
}

}  // namespace nearkey::demotion_test
