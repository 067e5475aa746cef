// Replies reach whoever asked, by position, whatever becomes of the connection.
#include "nearkey/upstream/connection.h"

#include "connection_rig.h"

#include <doctest/doctest.h>

namespace nearkey::connection_test {
namespace {

TEST_CASE("connection: replies go to their senders in the order of sending") {
    ConnectionRig rig;
    Collector a;
    Collector b;
    rig.make_ready();
    rig.send(a, 1, "GET a");
    rig.send(b, 1, "GET b");
    rig.send(a, 2, "SET c 1", RequestKind::Write);
    REQUIRE(rig.run_until_told(a, 2));
    CHECK(a.told == ToldWords{"1 +GET a", "2 +SET c 1"});
    CHECK(b.told == ToldWords{"1 +GET b"});
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("connection: a reply cut at every byte is still two replies") {
    ConnectionRig rig;
    Collector a;
    Collector b;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.valkey.answers["GET b"] = FakeValkey::kSilent;
    rig.make_ready();
    const std::string replies = "*2\r\n$2\r\n\r\n\r\n:1\r\n$-1\r\n";
    for (size_t cut = 1; cut < replies.size(); ++cut) {
        CAPTURE(cut);
        a.told.clear();
        b.told.clear();
        rig.send(a, 0, "GET a");
        rig.send(b, 0, "GET b");
        REQUIRE(rig.run_until_asked("GET b", cut));
        rig.valkey.send(0, replies.substr(0, cut));
        REQUIRE(run_until(rig.loop, [&] { return rig.valkey.unread(0) == 0; }));
        rig.valkey.send(0, replies.substr(cut));
        REQUIRE(rig.run_until_told(b, 1));
        CHECK(a.told == ToldWords{"0 *2\r\n$2\r\n\r\n\r\n:1"});
        CHECK(b.told == ToldWords{"0 $-1"});
    }
}

TEST_CASE("connection: a receiver that forgot leaves a tombstone whose reply is dropped") {
    ConnectionRig rig;
    Collector gone;
    Collector next;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.valkey.answers["GET b"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(gone, 1, "GET a");
    rig.send(next, 1, "GET b");
    REQUIRE(rig.run_until_asked("GET b", 1));
    rig.connection->forget(gone);
    CHECK(rig.metrics.tombstones == 1);
    rig.valkey.send(0, "+late\r\n+mine\r\n");
    REQUIRE(rig.run_until_told(next, 1));
    CHECK(gone.told.empty());
    CHECK(gone.part.empty());
    CHECK(next.told == ToldWords{"1 +mine"});
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("connection: one that forgets in mid-reply hears no more of it") {
    ConnectionRig rig;
    Collector gone;
    Collector next;
    rig.valkey.answers["GET a"] = "$4\r\nab";
    rig.valkey.answers["GET b"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(gone, 1, "GET a");
    rig.send(next, 1, "GET b");
    REQUIRE(run_until(rig.loop, [&] { return gone.part == "$4\r\nab"; }));
    rig.connection->forget(gone);
    rig.valkey.send(0, "cd\r\n:7\r\n");
    REQUIRE(rig.run_until_told(next, 1));
    CHECK(gone.part == "$4\r\nab");
    CHECK(gone.told.empty());
    CHECK(next.told == ToldWords{"1 :7"});
}

TEST_CASE("connection: a timeout is told to that sender only, and its late reply is dropped") {
    ConnectionRig rig;
    Collector slow;
    Collector other;
    rig.valkey.answers["GET slow"] = FakeValkey::kSilent;
    rig.valkey.answers["GET other"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.options.request_timeout_ms = 100;
    rig.send(slow, 1, "GET slow");
    const uint64_t sent_ms = rig.loop.now_ms();
    rig.options.request_timeout_ms = 100'000;
    rig.send(other, 1, "GET other");
    REQUIRE(rig.run_until_asked("GET other", 1));
    rig.connection->expire(sent_ms + 99);
    CHECK(slow.told.empty());
    rig.connection->expire(sent_ms + 100);
    CHECK(slow.told == ToldWords{"1 failed UPSTREAMTIMEOUT"});
    CHECK(other.told.empty());
    CHECK(rig.connection->is_ready());
    rig.send(slow, 2, "GET again");
    rig.valkey.send(0, "$4\r\nlate\r\n$5\r\nother\r\n");
    REQUIRE(rig.run_until_told(other, 1));
    CHECK(other.told == ToldWords{"1 $5\r\nother"});
    REQUIRE(rig.run_until_told(slow, 2));
    CHECK(slow.told.back() == "2 +GET again");
    CHECK(rig.metrics.upstream_timeout_total == 1);
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("connection: it is closed when its oldest tombstone is too old") {
    ConnectionRig rig;
    Collector slow;
    rig.options.request_timeout_ms = 100;
    rig.options.tombstone_timeout_ms = 1000;
    rig.valkey.answers["GET slow"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(slow, 1, "GET slow");
    const uint64_t sent_ms = rig.loop.now_ms();
    rig.connection->expire(sent_ms + 101);
    rig.connection->expire(sent_ms + 1100);
    CHECK(rig.connection->is_ready());
    rig.connection->expire(sent_ms + 1101);
    CHECK(rig.connection->state() == ConnectionState::Idle);
    CHECK(rig.metrics.tombstone_closes_total == 1);
    CHECK(rig.metrics.tombstones == 0);
    CHECK(slow.told == ToldWords{"1 failed UPSTREAMTIMEOUT"});
}

TEST_CASE("connection: a blocking command has no timeout, those behind it do") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["BLPOP k 0"] = FakeValkey::kSilent;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "BLPOP k 0", RequestKind::Blocking);
    rig.send(receiver, 2, "GET a");
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.connection->expire(rig.loop.now_ms() + 1'000'000);
    CHECK(receiver.told == ToldWords{"2 failed UPSTREAMTIMEOUT"});
    CHECK(rig.connection->is_ready());
    rig.valkey.send(0, ":1\r\n:2\r\n");
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told.back() == "1 :1");
}

TEST_CASE("connection: a push belongs to no request") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["GET a"] =
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n+yes\r\n>1\r\n+x\r\n";
    rig.make_ready();
    rig.send(receiver, 1, "GET a");
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_pushes_total == 2; }));
    CHECK(receiver.told == ToldWords{"1 +yes"});
}

TEST_CASE("connection: a malformed reply costs the connection, and nobody gets a piece of it") {
    ConnectionRig rig;
    Collector before;
    Collector hit;
    rig.valkey.answers["SET a 1"] = "?what\r\n";
    rig.make_ready();
    rig.send(before, 1, "GET b");
    rig.send(hit, 1, "SET a 1", RequestKind::Write);
    REQUIRE(rig.run_until_told(hit, 1));
    CHECK(before.told == ToldWords{"1 +GET b"});
    CHECK(hit.told == ToldWords{"1 failed UPSTREAMLOST"});
    CHECK(rig.metrics.upstream_protocol_errors_total == 1);
    rig.send(hit, 2, "GET c");
    REQUIRE(rig.run_until_told(hit, 2));
    CHECK(hit.told.back() == "2 +GET c");
    CHECK(rig.valkey.peer_count() == 2);
}

TEST_CASE("connection: a reply that nobody asked for costs the connection") {
    ConnectionRig rig;
    rig.make_ready();
    rig.valkey.send(0, "+OK\r\n");
    REQUIRE(run_until(rig.loop, [&] { return !rig.connection->is_ready(); }));
    CHECK(rig.lost == std::vector<std::string>{"a reply that nobody asked for"});
}

TEST_CASE("connection: a request larger than every buffer arrives whole") {
    ConnectionRig rig;
    Collector receiver;
    const std::string value(3 << 20, 'v');
    rig.valkey.answers["SET k " + value] = "+taken\r\n";
    rig.make_ready();
    rig.send(receiver, 1, "SET k " + value, RequestKind::Write);
    rig.send(receiver, 2, "GET k");
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told == ToldWords{"1 +taken", "2 +GET k"});
}

TEST_CASE("connection: closing it fails what is owed and whatever is sent later") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["SET a 1"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "SET a 1", RequestKind::Write);
    rig.connection->close("for the test");
    rig.send(receiver, 2, "SET b 1", RequestKind::Write);
    CHECK(receiver.told == ToldWords{"1 failed UPSTREAMLOST", "2 failed UPSTREAMDOWN"});
    CHECK(rig.metrics.upstream_connections == 0);
    CHECK(rig.metrics.in_flight == 0);
    CHECK(run_until(rig.loop, [&] { return rig.valkey.open_count() == 0; }));
}

TEST_CASE("connection: a read that was sent is not called unsent when its connection is closed") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "GET a");
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.connection->close("for the test");
    CHECK(receiver.told.back() == "1 failed UPSTREAMLOST");
}

TEST_CASE("connection: a receiver may close it while it is being told") {
    struct Closing final : ReplyReceiver {
        void on_reply_bytes(uint32_t, std::string_view) override { connection->close("enough"); }
        void on_reply_end(uint32_t) override { ++ends; }
        bool on_reply_void(uint32_t) override { return false; }
        void on_request_failed(uint32_t, std::string_view) override { ++failures; }
        Connection* connection = nullptr;
        int ends = 0;
        int failures = 0;
    };
    ConnectionRig rig;
    Closing closing;
    Collector other;
    rig.valkey.answers["INCR a"] = FakeValkey::kSilent;
    rig.make_ready();
    closing.connection = rig.connection.get();
    rig.connection->send({encoded("INCR a"), &closing, 1, RequestKind::Write});
    rig.send(other, 1, "INCR b", RequestKind::Write);
    REQUIRE(rig.run_until_asked("INCR b", 1));
    rig.valkey.send(0, ":1\r\n:2\r\n");
    REQUIRE(rig.run_until_told(other, 1));
    CHECK(other.told == ToldWords{"1 failed UPSTREAMLOST"});
    CHECK(closing.ends == 0);
    CHECK(closing.failures == 1);
}

TEST_CASE("connection: a heartbeat is sent only when none is owed") {
    ConnectionRig rig;
    rig.make_ready();
    rig.connection->probe().send_heartbeat();
    rig.connection->probe().send_heartbeat();
    CHECK(rig.metrics.in_flight == 1);
    REQUIRE(run_until(rig.loop, [&] { return !rig.heartbeats.empty(); }));
    CHECK(rig.heartbeats == std::vector<std::string>{"PONG"});
    rig.connection->probe().send_heartbeat();
    REQUIRE(run_until(rig.loop, [&] { return rig.heartbeats.size() == 2; }));
}

TEST_CASE("connection: a peer that answers no heartbeat at all is given up in the end") {
    ConnectionRig rig;
    rig.make_ready();
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    rig.connection->probe().send_heartbeat();
    const uint64_t patience_ms = rig.options.request_timeout_ms + rig.options.tombstone_timeout_ms;
    rig.connection->expire(rig.loop.now_ms() + patience_ms);
    CHECK(rig.connection->is_ready());
    rig.connection->expire(rig.loop.now_ms() + patience_ms + 1);
    CHECK_FALSE(rig.connection->is_ready());
}

TEST_CASE("connection: NOAUTH in place of a PONG is told and costs the connection") {
    ConnectionRig rig;
    rig.make_ready();
    rig.valkey.answers["PING"] = "-NOAUTH Authentication required.\r\n";
    rig.connection->probe().send_heartbeat();
    REQUIRE(run_until(rig.loop, [&] { return !rig.connection->is_ready(); }));
    CHECK(rig.auth_refused == std::vector<std::string>{"NOAUTH Authentication required."});
}

}  // namespace
}  // namespace nearkey::connection_test
