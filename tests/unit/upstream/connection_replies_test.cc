// Requests of several replies: they are sent, or fail, all together, and each reply has its ticket.
#include "nearkey/upstream/connection.h"

#include "connection_rig.h"

#include <doctest/doctest.h>

namespace nearkey::connection_replies_test {
namespace {

const std::vector<std::string> kBlock{"MULTI", "SET a 1", "EXEC"};

void send_block(ConnectionRig& rig, ReplyReceiver& receiver, uint32_t ticket) {
    std::string bytes;
    for (const std::string& line : kBlock)
        bytes += encoded(line);
    rig.connection->send({bytes, &receiver, ticket, RequestKind::Write, 3});
}

void silence_block(ConnectionRig& rig) {
    for (const std::string& line : kBlock)
        rig.valkey.answers[line] = FakeValkey::kSilent;
}

// Forgets its connection's replies when the first of them has ended.
class Quitter final : public ReplyReceiver {
public:
    explicit Quitter(Connection& connection) : connection_(connection) {}
    void on_reply_bytes(uint32_t, std::string_view) override { ++pieces; }
    void on_reply_end(uint32_t) override { connection_.forget(*this); }
    bool on_reply_void(uint32_t) override { return false; }
    void on_request_failed(uint32_t, std::string_view) override { ++failed; }
    int pieces = 0;
    int failed = 0;

private:
    Connection& connection_;
};

TEST_CASE("several replies: each has its ticket, and the next request's comes behind them") {
    ConnectionRig rig;
    Collector a;
    Collector b;
    rig.make_ready();
    rig.send(b, 1, "GET x");
    send_block(rig, a, 7);
    rig.send(b, 2, "GET y");
    REQUIRE(rig.run_until_told(b, 2));
    CHECK(a.told == ToldWords{"7 +MULTI", "8 +SET a 1", "9 +EXEC"});
    CHECK(b.told == ToldWords{"1 +GET x", "2 +GET y"});
    CHECK(rig.valkey.asked_when_ready(0) ==
          std::vector<std::string>{"GET x", "MULTI", "SET a 1", "EXEC", "GET y"});
    CHECK(rig.metrics.in_flight == 0);
    CHECK(rig.connection->pipeline().is_idle());
}

TEST_CASE("several replies: cut at every byte they stay the same") {
    ConnectionRig rig;
    Collector receiver;
    silence_block(rig);
    rig.make_ready();
    const std::string replies = "+OK\r\n+QUEUED\r\n*1\r\n$2\r\nOK\r\n";
    for (size_t cut = 1; cut < replies.size(); ++cut) {
        CAPTURE(cut);
        receiver.told.clear();
        send_block(rig, receiver, 1);
        REQUIRE(rig.run_until_asked("EXEC", cut));
        rig.valkey.send(0, replies.substr(0, cut));
        REQUIRE(run_until(rig.loop, [&] { return rig.valkey.unread(0) == 0; }));
        rig.valkey.send(0, replies.substr(cut));
        REQUIRE(rig.run_until_told(receiver, 3));
        CHECK(receiver.told == ToldWords{"1 +OK", "2 +QUEUED", "3 *1\r\n$2\r\nOK"});
    }
}

TEST_CASE("several replies: forgotten in the middle, the rest is dropped") {
    ConnectionRig rig;
    Collector gone;
    Collector next;
    silence_block(rig);
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.make_ready();
    send_block(rig, gone, 1);
    rig.send(next, 1, "GET a");
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.valkey.send(0, "+OK\r\n+QUE");
    REQUIRE(run_until(rig.loop, [&] { return gone.part == "+QUE"; }));
    rig.connection->forget(gone);
    CHECK(rig.metrics.tombstones == 1);
    rig.valkey.send(0, "UED\r\n*0\r\n+mine\r\n");
    REQUIRE(rig.run_until_told(next, 1));
    CHECK(gone.told == ToldWords{"1 +OK"});
    CHECK(gone.part == "+QUE");
    CHECK(next.told == ToldWords{"1 +mine"});
    CHECK(rig.metrics.tombstones == 0);
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("several replies: a receiver may forget them inside the end of one") {
    ConnectionRig rig;
    rig.make_ready();
    Quitter quitter(*rig.connection);
    Collector next;
    send_block(rig, quitter, 1);
    rig.send(next, 1, "GET a");
    REQUIRE(rig.run_until_told(next, 1));
    CHECK(quitter.pieces == 1);
    CHECK(quitter.failed == 0);
    CHECK(next.told == ToldWords{"1 +GET a"});
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("several replies: when the connection is lost the remaining ones fail") {
    ConnectionRig rig;
    Collector receiver;
    silence_block(rig);
    rig.make_ready();
    send_block(rig, receiver, 4);
    REQUIRE(rig.run_until_asked("EXEC", 1));
    rig.valkey.send(0, "+OK\r\n+QU");
    REQUIRE(run_until(rig.loop, [&] { return receiver.part == "+QU"; }));
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 3));
    CHECK(receiver.told == ToldWords{"4 +OK", "5 failed UPSTREAMLOST", "6 failed UPSTREAMLOST"});
    CHECK(rig.metrics.in_flight == 0);
    CHECK(rig.connection->pipeline().is_idle());
    CHECK(rig.valkey.times_asked("MULTI") == 1);
}

TEST_CASE("several replies: too late, the remaining ones fail and what comes is dropped") {
    ConnectionRig rig;
    Collector receiver;
    Collector next;
    silence_block(rig);
    rig.options.request_timeout_ms = 100;
    rig.make_ready();
    send_block(rig, receiver, 1);
    const uint64_t sent_ms = rig.loop.now_ms();
    rig.options.request_timeout_ms = 100'000;
    REQUIRE(rig.run_until_asked("EXEC", 1));
    rig.valkey.send(0, "+OK\r\n");
    REQUIRE(rig.run_until_told(receiver, 1));
    rig.connection->expire(sent_ms + 99);
    CHECK(receiver.told.size() == 1);
    rig.connection->expire(sent_ms + 100);
    const ToldWords expected{"1 +OK", "2 failed UPSTREAMTIMEOUT", "3 failed UPSTREAMTIMEOUT"};
    CHECK(receiver.told == expected);
    CHECK(rig.metrics.tombstones == 1);
    rig.send(next, 1, "GET a");
    rig.valkey.send(0, "+QUEUED\r\n*0\r\n");
    REQUIRE(rig.run_until_told(next, 1));
    CHECK(next.told == ToldWords{"1 +GET a"});
    CHECK(receiver.told == expected);
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("several replies: in the queue they wait, expire and are forgotten together") {
    ConnectionRig rig;
    Collector receiver;
    Collector gone;
    rig.valkey.stop_listening();
    send_block(rig, receiver, 1);
    send_block(rig, gone, 1);
    CHECK(rig.metrics.queued == 2);
    rig.connection->forget(gone);
    rig.connection->expire(rig.loop.now_ms() + rig.options.queue_timeout_ms);
    CHECK(receiver.told ==
          ToldWords{"1 failed UPSTREAMDOWN", "2 failed UPSTREAMDOWN", "3 failed UPSTREAMDOWN"});
    CHECK(gone.told.empty());
    CHECK(rig.metrics.queued == 0);
    CHECK(rig.context.queued_bytes == 0);
    send_block(rig, receiver, 5);
    rig.valkey.listen();
    REQUIRE(rig.run_until_told(receiver, 6));
    CHECK(receiver.told.back() == "7 +EXEC");
    CHECK(rig.valkey.times_asked("MULTI") == 1);
}

TEST_CASE("several replies: a full queue refuses all of them at once") {
    ConnectionRig rig;
    Collector receiver;
    rig.options.queue_commands_max = 0;
    send_block(rig, receiver, 1);
    CHECK(receiver.told ==
          ToldWords{"1 failed UPSTREAMDOWN", "2 failed UPSTREAMDOWN", "3 failed UPSTREAMDOWN"});
    CHECK(rig.metrics.queue_full_total == 1);
}

}  // namespace
}  // namespace nearkey::connection_replies_test
