// What becomes of requests when their connection is lost, or is not there yet.
#include "nearkey/upstream/connection.h"

#include "connection_rig.h"

#include <doctest/doctest.h>

namespace nearkey::connection_loss_test {
namespace {

TEST_CASE("lost connection: a write fails with UPSTREAMLOST and is not sent again") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["SET a 1"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "SET a 1", RequestKind::Write);
    REQUIRE(rig.run_until_asked("SET a 1", 1));
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told == ToldWords{"1 failed UPSTREAMLOST"});
    rig.send(receiver, 2, "GET a");
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told.back() == "2 +GET a");
    CHECK(rig.valkey.times_asked("SET a 1") == 1);
    CHECK(rig.metrics.upstream_lost_total == 1);
    CHECK(rig.metrics.upstream_lost_socket_total == 1);
}

TEST_CASE("lost connection: a read is sent once more, before what was sent later") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers = {{"GET a", "$6\r\nhal"},
                          {"INCR b", std::string(FakeValkey::kSilent)},
                          {"GET c", std::string(FakeValkey::kSilent)}};
    rig.make_ready();
    rig.send(receiver, 1, "GET a");
    rig.send(receiver, 2, "INCR b", RequestKind::Blocking);
    rig.send(receiver, 3, "GET c");
    REQUIRE(run_until(rig.loop, [&] { return !receiver.part.empty(); }));
    rig.valkey.answers.clear();
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 3));
    rig.send(receiver, 4, "INCR d", RequestKind::Write);
    REQUIRE(rig.run_until_told(receiver, 6));
    CHECK(receiver.told == ToldWords{"1 void", "2 failed UPSTREAMLOST", "3 void", "1 +GET a",
                                     "3 +GET c", "4 +INCR d"});
    CHECK(rig.metrics.reads_retried_total == 2);
    CHECK(rig.metrics.queued == 0);
}

TEST_CASE("lost connection: a read is sent again only once") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "GET a");
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.valkey.close(0);
    REQUIRE(rig.run_until_asked("GET a", 2));
    rig.valkey.close(1);
    REQUIRE(rig.run_until_told(receiver, 2));
    CHECK(receiver.told == ToldWords{"1 void", "1 failed UPSTREAMLOST"});
    CHECK(rig.valkey.times_asked("GET a") == 2);
}

TEST_CASE("lost connection: a read that is answered is not sent again with those behind it") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["GET b"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "GET answered-a-while-ago");
    rig.send(receiver, 2, "GET b");
    REQUIRE(rig.run_until_told(receiver, 1));
    REQUIRE(rig.run_until_asked("GET b", 1));
    rig.valkey.answers.clear();
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 3));
    CHECK(receiver.told == ToldWords{"1 +GET answered-a-while-ago", "2 void", "2 +GET b"});
    CHECK(rig.valkey.times_asked("GET answered-a-while-ago") == 1);
}

TEST_CASE("lost connection: neither a long read nor one that nobody waits for is sent again") {
    ConnectionRig rig;
    Collector receiver;
    Collector gone;
    rig.options.retry_bytes_max = encoded("GET 12345").size();
    rig.valkey.answers["GET 12345"] = FakeValkey::kSilent;
    rig.valkey.answers["GET 123456"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(gone, 1, "GET 12345");
    rig.send(receiver, 1, "GET 123456");
    REQUIRE(rig.run_until_asked("GET 123456", 1));
    rig.connection->forget(gone);
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told == ToldWords{"1 failed UPSTREAMLOST"});
    CHECK(gone.told.empty());
    CHECK(rig.connection->pipeline().is_idle());
    CHECK(rig.metrics.tombstones == 0);
    CHECK(rig.metrics.reads_retried_total == 0);
}

TEST_CASE("connection: what may be sent again, and what waits, is counted until it is over") {
    ConnectionRig rig;
    rig.make_ready();
    Collector receiver;
    const std::string line = "GET " + std::string(40'000, 'k');
    rig.valkey.answers[line] = "";
    rig.send(receiver, 1, line);
    REQUIRE(rig.run_until_asked(line, 1));
    CHECK(rig.metrics.upstream_retained_bytes >= line.size());
    CHECK(rig.metrics.upstream_unsent_bytes == 0);
    rig.redials = false;
    rig.valkey.close(0);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.queued == 1; }));
    CHECK(rig.metrics.upstream_retained_bytes == 0);
    CHECK(rig.metrics.upstream_unsent_bytes >= line.size());
    rig.connection->close("the test is over");
    CHECK(rig.metrics.upstream_unsent_bytes == 0);
}

TEST_CASE("waiting requests: each fails with UPSTREAMDOWN after queue_timeout, none is sent") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.stop_listening();
    rig.send(receiver, 1, "GET a");
    rig.send(receiver, 2, "INCR b", RequestKind::Write);
    const uint64_t now_ms = rig.loop.now_ms();
    rig.connection->expire(now_ms + rig.options.queue_timeout_ms - 1);
    CHECK(receiver.told.empty());
    rig.connection->expire(now_ms + rig.options.queue_timeout_ms);
    CHECK(receiver.told == ToldWords{"1 failed UPSTREAMDOWN", "2 failed UPSTREAMDOWN"});
    CHECK(rig.metrics.upstream_down_total == 2);
    CHECK(rig.metrics.queued == 0);
    CHECK(rig.context.queued_bytes == 0);
    rig.valkey.listen();
    REQUIRE(run_until(rig.loop, [&] { return rig.connection->is_ready(); }));
    CHECK(rig.valkey.times_asked("INCR b") == 0);
}

TEST_CASE("waiting requests: a read that was sent once fails with UPSTREAMLOST") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.send(receiver, 1, "GET a");
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.valkey.stop_listening();
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 1));
    rig.connection->expire(rig.loop.now_ms() + rig.options.queue_timeout_ms);
    CHECK(receiver.told == ToldWords{"1 void", "1 failed UPSTREAMLOST"});
    CHECK(rig.metrics.upstream_lost_total == 1);
}

TEST_CASE("waiting requests: one that is forgotten is never sent") {
    ConnectionRig rig;
    Collector gone;
    Collector receiver;
    rig.send(gone, 1, "INCR a", RequestKind::Write);
    rig.send(receiver, 1, "INCR b", RequestKind::Write);
    rig.connection->forget(gone);
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told == ToldWords{"1 +INCR b"});
    CHECK(gone.told.empty());
    CHECK(rig.valkey.times_asked("INCR a") == 0);
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("waiting requests: the queue is limited in commands and in bytes, told at once") {
    ConnectionRig rig;
    Collector receiver;
    rig.options.queue_commands_max = 2;
    rig.options.queue_bytes_max = 2 * encoded("GET a").size();
    rig.send(receiver, 1, "GET a");
    rig.send(receiver, 2, "GET b-which-is-longer");
    CHECK(receiver.told == ToldWords{"2 failed UPSTREAMDOWN"});
    rig.send(receiver, 3, "GET c");
    rig.options.queue_bytes_max *= 100;
    rig.send(receiver, 4, "GET d");
    CHECK(receiver.told == ToldWords{"2 failed UPSTREAMDOWN", "4 failed UPSTREAMDOWN"});
    CHECK(rig.metrics.queue_full_total == 2);
    REQUIRE(rig.run_until_told(receiver, 4));
    CHECK(receiver.told[2] == "1 +GET a");
    CHECK(receiver.told[3] == "3 +GET c");
    CHECK(rig.context.queued_commands == 0);
    CHECK(rig.context.queued_bytes == 0);
}

TEST_CASE("dialling: the handshake goes in lock-step, and nothing overtakes it") {
    ConnectionRig rig;
    Collector receiver;
    rig.make_connection(Protocol::Resp3, 7);
    const std::vector<std::string> steps{"HELLO 3", "SELECT 7", "CLIENT SETNAME nearkey", "PING"};
    for (const std::string& step : steps)
        rig.valkey.answers[step] = FakeValkey::kSilent;
    rig.send(receiver, 1, "GET a");
    std::vector<std::string> expected;
    for (const std::string& step : steps) {
        expected.push_back(step);
        REQUIRE(rig.run_until_asked(step, 1));
        CHECK(rig.valkey.asked(0) == expected);
        CHECK(rig.connection->state() == ConnectionState::Handshaking);
        rig.valkey.send(0, step == "HELLO 3" ? "%0\r\n" : step == "PING" ? "+PONG\r\n" : "+OK\r\n");
    }
    REQUIRE(rig.run_until_told(receiver, 1));
    expected.emplace_back("GET a");
    CHECK(rig.valkey.asked(0) == expected);
    CHECK(rig.ready_count == 1);
    CHECK(rig.metrics.upstream_connections == 1);
}

TEST_CASE("dialling: a server that refuses PING is asked, and says itself what it says") {
    for (const std::string words : {"LOADING not yet", "MISCONF can't save", "BUSY"}) {
        ConnectionRig rig;
        Collector receiver;
        rig.valkey.answers["PING"] = "-" + words + "\r\n";
        rig.valkey.answers["GET a"] = "-" + words + " of GET\r\n";
        rig.send(receiver, 1, "GET a");
        REQUIRE(rig.run_until_told(receiver, 1));
        CHECK(receiver.told.back() == "1 -" + words + " of GET");
        CHECK(rig.connection->is_ready());
        CHECK(rig.connection->probe().pong().refusal == words);
        CHECK(rig.metrics.upstream_dial_failures_total == 0);
    }
}

TEST_CASE("dialling: a server that takes no connection says so to all who wait, and who come") {
    ConnectionRig rig;
    Collector receiver;
    rig.redials = false;
    rig.options.queue_timeout_ms = 1;
    rig.valkey.answers["HELLO 2"] = "-ERR max number of clients reached\r\n";
    rig.send(receiver, 1, "GET a");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.last_error == "ERR max number of clients reached");
    CHECK(rig.connection->state() == ConnectionState::Idle);
    rig.send(receiver, 2, "GET a");
    rig.connection->expire(rig.loop.now_ms() + 2);
    CHECK(receiver.told.size() == 2);
    CHECK(receiver.last_error == "ERR max number of clients reached");
    CHECK(rig.metrics.upstream_down_total == 2);
    rig.valkey.answers.clear();
    rig.make_ready();
    CHECK(rig.target.refusal.empty());
}

TEST_CASE("dialling: nobody is told of a refusal once the server can't be reached") {
    ConnectionRig rig;
    Collector receiver;
    rig.redials = false;
    rig.valkey.answers["HELLO 2"] = "-DENIED no\r\n";
    rig.connection->dial();
    REQUIRE(run_until(rig.loop, [&] { return rig.lost.size() == 1; }));
    rig.valkey.stop_listening();
    rig.connection->dial();
    REQUIRE(run_until(rig.loop, [&] { return rig.lost.size() == 2; }));
    rig.send(receiver, 1, "GET a");
    rig.connection->expire(rig.loop.now_ms() + rig.options.queue_timeout_ms + 1);
    REQUIRE(receiver.told.size() == 1);
    CHECK(receiver.last_error.starts_with("UPSTREAMDOWN"));
}

TEST_CASE("dialling: a SELECT that is refused closes for good, unless it is the primary") {
    for (const bool is_primary : {false, true}) {
        CAPTURE(is_primary);
        ConnectionRig rig;
        Collector receiver;
        rig.redials = false;
        rig.make_connection(Protocol::Resp2, 99);
        if (is_primary) rig.connection->use().set_role(ConnectionUse::Role::Primary);
        rig.valkey.answers["SELECT 99"] = "-ERR DB index is out of range\r\n";
        rig.send(receiver, 1, "GET a");
        REQUIRE(run_until(rig.loop, [&] { return !rig.lost.empty(); }));
        if (is_primary) {
            CHECK(rig.connection->state() == ConnectionState::Idle);
        } else {
            CHECK(rig.connection->state() == ConnectionState::Closed);
        }
        CHECK(receiver.last_error == "ERR DB index is out of range");
    }
}

TEST_CASE("dialling: refused credentials are told, and who waits reads the server's words") {
    ConnectionRig rig;
    Collector receiver;
    rig.url.user = "somebody";
    rig.url.password = "secret";
    rig.redials = false;
    rig.valkey.answers["HELLO 2 AUTH somebody secret"] = "-WRONGPASS invalid pair\r\n";
    rig.valkey.answers["PING"] = "-NOAUTH Authentication required.\r\n";
    rig.send(receiver, 1, "GET a");
    REQUIRE(run_until(rig.loop, [&] { return !rig.lost.empty(); }));
    CHECK(rig.auth_refused == std::vector<std::string>{"WRONGPASS invalid pair"});
    CHECK(rig.lost == rig.auth_refused);
    REQUIRE(receiver.told.size() == 1);
    CHECK(receiver.last_error == "NOAUTH Authentication required.");
}

// As one that nobody has taken yet is, where the refusal has another password read.
TEST_CASE("dialling: one that is closed while its refusal is told of ends there") {
    for (const WhenRefused when : {WhenRefused::Fail, WhenRefused::Wait, WhenRefused::WaitOrTell}) {
        ConnectionRig rig;
        Collector receiver;
        rig.url.user = "somebody";
        rig.url.password = "secret";
        rig.closes_when_refused = true;
        rig.valkey.answers["HELLO 2 AUTH somebody secret"] = "-WRONGPASS invalid pair\r\n";
        rig.connection->use().set_when_refused(when);
        rig.send(receiver, 1, "GET a");
        REQUIRE(run_until(rig.loop, [&] { return !rig.lost.empty(); }));
        CHECK(rig.auth_refused == std::vector<std::string>{"WRONGPASS invalid pair"});
        CHECK(rig.lost == std::vector<std::string>{"another password"});
        CHECK(rig.connection->state() == ConnectionState::Closed);
        CHECK(receiver.last_error == "UPSTREAMDOWN another password");
        CHECK(rig.target.failed_dials == 0);
    }
}

TEST_CASE("dialling: a peer that accepts and stays silent is given up after connect_timeout") {
    ConnectionRig rig;
    rig.options.connect_timeout_ms = 20;
    rig.redials = false;
    rig.valkey.answers["CLIENT SETNAME nearkey"] = FakeValkey::kSilent;
    rig.connection->dial();
    REQUIRE(run_until(rig.loop, [&] { return !rig.lost.empty(); }));
    CHECK(rig.lost == std::vector<std::string>{"no answer to HELLO"});
    CHECK(rig.valkey.asked(0).back() == "CLIENT SETNAME nearkey");
    CHECK(run_until(rig.loop, [&] { return rig.valkey.open_count() == 0; }));
}

TEST_CASE("dialling: where nobody listens the attempt fails and the next one can succeed") {
    ConnectionRig rig;
    rig.valkey.stop_listening();
    rig.connection->dial();
    REQUIRE(run_until(rig.loop, [&] { return rig.lost.size() == 1; }));
    CHECK(rig.connection->state() == ConnectionState::Idle);
    CHECK(rig.metrics.upstream_dial_failures_total == 1);
    rig.valkey.listen();
    rig.make_ready();
    CHECK(rig.metrics.upstream_connects_total == 1);
}

TEST_CASE("dialling: a peer that hangs up in mid-handshake costs one attempt") {
    ConnectionRig rig;
    Collector receiver;
    rig.valkey.hangs_up = true;
    rig.send(receiver, 1, "GET a");
    REQUIRE(run_until(rig.loop, [&] { return rig.lost.size() >= 2; }));
    CHECK(receiver.told.empty());
    rig.valkey.hangs_up = false;
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(receiver.told == ToldWords{"1 +GET a"});
}

}  // namespace
TEST_CASE("connection: one that is closed looks at its target no more") {
    ConnectionRig rig;
    rig.make_ready();
    rig.target.refusal = "NOAUTH";
    rig.connection->close("enough");
    CHECK(rig.connection->dialer().words().empty());
}

TEST_CASE("connection: what can't be the answer to a question of its own loses it") {
    ConnectionRig rig;
    UpstreamUrl access = rig.url;
    access.password = "secret";
    SUBCASE("whether it can be trusted") {
        rig.valkey.answers["HELLO"] = "$5\r\nvalue\r\n";
        rig.make_ready();
        rig.connection->probe().suspect();
    }
    SUBCASE("whether the password holds") {
        rig.valkey.answers["AUTH default secret"] = "$5\r\nvalue\r\n";
        rig.make_ready();
        rig.connection->probe().say_password(access);
    }
    CHECK(run_until(rig.loop, [&] { return rig.metrics.upstream_lost_malformed_total == 1; }));
    CHECK(rig.metrics.upstream_protocol_errors_total == 1);
}

}  // namespace nearkey::connection_loss_test
