// A connection of one's own for a command: who the server takes it for, WAIT, and who waits for it.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_lease_test {
namespace {

using Lines = std::vector<std::string>;

const std::string kMark = "SPUBLISH nearkey:wait ";
const std::string kNoneLeft =
    "-ERR nearkey has no dedicated connection left (upstream.dedicated_max)\r\n";

void run_for(SessionRig& rig, uint64_t time_ms) {
    const uint64_t start_ms = rig.loop.now_ms();
    run_until(rig.loop, [&] { return rig.loop.now_ms() >= start_ms + time_ms; });
}

TEST_CASE("lease: the server is told who the client is, before the command and only once") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"CLIENT SETNAME me", "CLIENT SETINFO lib-name lib", "CLIENT SETINFO LIB-VER 1.2"});
    client.ask({"EVAL x 0"});
    const std::string own = "+OK\r\n+OK\r\n+OK\r\n";
    REQUIRE(rig.run_until_output(client, own + "+EVAL x 0\r\n"));
    client.ask({"GET a", "EVAL y 0"});
    REQUIRE(rig.run_until_output(client, own + "+EVAL x 0\r\n+GET a\r\n+EVAL y 0\r\n"));
    const size_t leased = rig.valkey.peer_of("EVAL x 0");
    const Lines expected{"CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME lib",
                         "CLIENT SETINFO LIB-VER 1.2", "EVAL x 0", "EVAL y 0"};
    CHECK(rig.valkey.asked_when_ready(leased) == expected);
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("lease: of two kept ones a client gets the one that knows it") {
    SessionRig rig;
    rig.silence("EVAL x 0");
    rig.silence("EVAL y 0");
    FakeClient& anna = rig.make_ready();
    FakeClient& otto = rig.add_client();
    anna.ask({"CLIENT SETNAME anna", "EVAL x 0"});
    otto.ask({"CLIENT SETNAME otto", "EVAL y 0"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    REQUIRE(rig.run_until_asked("EVAL y 0", 1));
    const size_t annas = rig.valkey.peer_of("EVAL x 0");
    const size_t ottos = rig.valkey.peer_of("EVAL y 0");
    rig.valkey.send(annas, "+x\r\n");
    REQUIRE(rig.run_until_output(anna, "+OK\r\n+x\r\n"));
    rig.valkey.send(ottos, "+y\r\n");
    REQUIRE(rig.run_until_output(otto, "+OK\r\n+y\r\n"));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    otto.ask({"EVAL otto 0"});
    REQUIRE(rig.run_until_asked("EVAL otto 0", 1));
    CHECK(rig.valkey.peer_of("EVAL otto 0") == ottos);
    CHECK(rig.valkey.asked_when_ready(ottos) ==
          Lines{"CLIENT SETNAME otto", "EVAL y 0", "EVAL otto 0"});
    FakeClient& third = rig.add_client();
    third.ask({"EVAL third 0"});
    REQUIRE(rig.run_until_asked("EVAL third 0", 1));
    CHECK(rig.valkey.asked_when_ready(annas) ==
          Lines{"CLIENT SETNAME anna", "EVAL x 0", "CLIENT SETNAME ", "EVAL third 0"});
}

TEST_CASE("lease: a refused introduction is nobody's reply") {
    SessionRig rig;
    rig.valkey.answers["CLIENT SETNAME "] = "-ERR no\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"EVAL x 0", "GET a"});
    CHECK(rig.run_until_output(client, "+EVAL x 0\r\n+GET a\r\n"));
}

TEST_CASE("lease: XREAD needs one only where it waits") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"XREAD STREAMS s 0"});
    REQUIRE(rig.run_until_asked("XREAD STREAMS s 0", 1));
    CHECK(rig.valkey.peer_count() == 1);
    client.ask({"XREAD BLOCK 0 STREAMS s 0"});
    REQUIRE(rig.run_until_asked("XREAD BLOCK 0 STREAMS s 0", 1));
    CHECK(rig.valkey.peer_of("XREAD BLOCK 0 STREAMS s 0") == 1);
}

TEST_CASE("lease: WAIT of a session that has not written asks nothing before") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "WAIT 1 0"});
    CHECK(rig.run_until_output(client, "+GET a\r\n+WAIT 1 0\r\n"));
    CHECK(rig.valkey.times_asked(kMark) == 0);
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("lease: WAIT of a session that has written sends a mark first") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"SET a 1", "WAIT 1 0", "GET b"});
    CHECK(rig.run_until_output(client, "+SET a 1\r\n+WAIT 1 0\r\n+GET b\r\n"));
    const size_t leased = rig.valkey.peer_of("WAIT 1 0");
    CHECK(leased != 0);
    CHECK(rig.valkey.asked_when_ready(leased) == Lines{"CLIENT SETNAME ", kMark, "WAIT 1 0"});
    CHECK(rig.valkey.peer_of("GET b") == 0);
    client.ask({"WAIT 2 0"});
    REQUIRE(rig.run_until_asked("WAIT 2 0", 1));
    CHECK(rig.valkey.times_asked(kMark) == 2);
    CHECK(rig.valkey.asked_when_ready(leased).back() == "WAIT 2 0");
}

TEST_CASE("lease: WAIT is sent when its mark is answered, and has no timeout") {
    SessionRig rig;
    rig.silence(kMark);
    rig.silence("WAIT 1 0");
    FakeClient& client = rig.make_ready();
    client.ask({"EVAL x 0", "WAIT 1 0"});
    REQUIRE(rig.run_until_asked(kMark, 1));
    rig.settle();
    CHECK(rig.valkey.times_asked("WAIT 1 0") == 0);
    rig.options.request_timeout_ms = 50;
    const size_t leased = rig.valkey.peer_of(kMark);
    rig.valkey.send(leased, ":0\r\n");
    REQUIRE(rig.run_until_asked("WAIT 1 0", 1));
    run_for(rig, 150);
    CHECK(client.output() == "+EVAL x 0\r\n");
    rig.valkey.send(leased, ":2\r\n");
    CHECK(rig.run_until_output(client, "+EVAL x 0\r\n:2\r\n"));
}

TEST_CASE("lease: WAIT whose mark is refused is an error, and the connection is kept") {
    SessionRig rig;
    rig.valkey.answers[kMark] = "-NOPERM no channel\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"SET a 1", "WAIT 1 0", "EVAL x 0"});
    const std::string refused =
        "-NOPERM no channel (WAIT could not be made to count this session's writes)\r\n";
    CHECK(rig.run_until_output(client, "+SET a 1\r\n" + refused + "+EVAL x 0\r\n"));
    CHECK(rig.valkey.times_asked("WAIT 1 0") == 0);
    CHECK(rig.valkey.peer_of("EVAL x 0") == rig.valkey.peer_of(kMark));
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("lease: WAIT whose mark is lost or late ends the client, and no connection is kept") {
    for (const bool is_late : {false, true}) {
        CAPTURE(is_late);
        SessionRig rig;
        rig.silence(kMark);
        FakeClient& client = rig.make_ready();
        client.ask({"SET a 1"});
        REQUIRE(rig.run_until_output(client, "+SET a 1\r\n"));
        if (is_late) rig.options.request_timeout_ms = 50;
        client.ask({"WAIT 1 0", "QUIT"});
        REQUIRE(rig.run_until_asked(kMark, 1));
        const size_t leased = rig.valkey.peer_of(kMark);
        if (!is_late) rig.valkey.close(leased);
        REQUIRE(rig.run_until_ended(client));
        CHECK(client.output() == "+SET a 1\r\n");
        CHECK(rig.valkey.times_asked("WAIT 1 0") == 0);
        CHECK(rig.run_until_closed(leased));
        CHECK(rig.node->leases().leased().size() == 0);
        CHECK(rig.metrics.tombstones == 0);
    }
}

TEST_CASE("lease: a session that ends before its mark is answered closes the connection") {
    SessionRig rig;
    rig.silence(kMark);
    FakeClient& client = rig.make_ready();
    client.ask({"SET a 1", "WAIT 1 0"});
    REQUIRE(rig.run_until_asked(kMark, 1));
    client.session.abort();
    CHECK(rig.run_until_closed(rig.valkey.peer_of(kMark)));
    CHECK(rig.metrics.tombstones == 0);
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("lease: with dedicated_max reached a command waits, and gets the one that is freed") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    rig.silence("EVAL x 0");
    // Of a text the lease would have to prove that nothing of it is left over.
    rig.valkey.answers["EVAL y 0"] = ":2\r\n";
    rig.valkey.answers["EVAL z 0"] = ":3\r\n";
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    FakeClient& third = rig.add_client();
    first.ask({"EVAL x 0"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    second.ask({"GET a", "EVAL y 0", "GET b"});
    REQUIRE(rig.run_until_output(second, "+GET a\r\n"));
    third.ask({"EVAL z 0"});
    rig.settle();
    CHECK_FALSE(second.socket.is_reading);
    CHECK(rig.metrics.upstream_dedicated_waits_total == 2);
    CHECK(rig.valkey.times_asked("EVAL y 0") == 0);
    const size_t leased = rig.valkey.peer_of("EVAL x 0");
    rig.valkey.send(leased, ":1\r\n");
    CHECK(rig.run_until_output(second, "+GET a\r\n:2\r\n+GET b\r\n"));
    CHECK(rig.run_until_output(third, ":3\r\n"));
    CHECK(rig.valkey.asked_when_ready(leased) ==
          Lines{"CLIENT SETNAME ", "EVAL x 0", "EVAL y 0", "EVAL z 0"});
    CHECK(second.socket.is_reading);
    CHECK(rig.metrics.upstream_dedicated_refused_total == 0);
}

TEST_CASE("lease: with dedicated_max reached for too long a command is refused, and tries again") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    first.ask({"WATCH k"});
    REQUIRE(rig.run_until_output(first, "+WATCH k\r\n"));
    rig.options.queue_timeout_ms = 50;
    second.ask({"WATCH l"});
    CHECK(rig.run_until_output(second, kNoneLeft));
    second.ask({"SUBSCRIBE c", "GET a"});
    CHECK(rig.run_until_output(second, kNoneLeft + kNoneLeft + "+GET a\r\n"));
    CHECK(rig.metrics.upstream_dedicated_refused_total == 2);
    rig.options.queue_timeout_ms = 10'000;
    first.session.abort();
    second.ask({"EVAL x 0"});
    CHECK(rig.run_until_output(second, kNoneLeft + kNoneLeft + "+GET a\r\n+EVAL x 0\r\n"));
}

TEST_CASE("lease: a client that leaves while it waits passes its place on") {
    for (const bool is_granted : {false, true}) {
        CAPTURE(is_granted);
        SessionRig rig;
        rig.options.dedicated_max = 1;
        FakeClient& first = rig.make_ready();
        FakeClient& gone = rig.add_client();
        FakeClient& next = rig.add_client();
        first.ask({"WATCH k"});
        REQUIRE(rig.run_until_output(first, "+WATCH k\r\n"));
        gone.ask({"EVAL gone 0"});
        next.ask({"EVAL next 0"});
        if (is_granted) first.session.abort();
        gone.session.abort();
        if (!is_granted) first.session.abort();
        CHECK(rig.run_until_output(next, "+EVAL next 0\r\n"));
        CHECK(rig.valkey.times_asked("EVAL gone 0") == 0);
        CHECK(rig.node->leases().leased().size() == 0);
    }
}

TEST_CASE("lease: one that is drained while it waits for a lease ends when the wait does") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 50;
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    first.ask({"WATCH k"});
    REQUIRE(rig.run_until_output(first, "+WATCH k\r\n"));
    second.ask({"EVAL x 0"});
    second.session.drain();
    CHECK(rig.run_until_ended(second));
    CHECK(rig.valkey.times_asked("EVAL x 0") == 0);
}

TEST_CASE("lease: a client that sends no more gets what it waits for a lease for") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    first.ask({"WATCH k"});
    REQUIRE(rig.run_until_output(first, "+WATCH k\r\n"));
    second.ask({"EVAL x 0"});
    second.session.on_end();
    rig.settle();
    CHECK_FALSE(rig.is_ended(second));
    first.ask({"UNWATCH"});
    CHECK(rig.run_until_ended(second));
    CHECK(second.output() == "+EVAL x 0\r\n");
}

TEST_CASE("lease: what is pipelined behind a blocking command does not expire before it") {
    for (const std::string line : {"EVAL x 0", "BLPOP l 0", "WATCH a", "MULTI"}) {
        CAPTURE(line);
        SessionRig rig;
        rig.options.request_timeout_ms = 60;
        rig.silence("BLPOP k 0");
        rig.silence(line);
        FakeClient& client = rig.make_ready();
        client.ask({"BLPOP k 0", line});
        REQUIRE(rig.run_until_asked("BLPOP k 0", 1));
        run_for(rig, 150);
        CHECK(client.output().empty());
        rig.valkey.send(rig.valkey.peer_of("BLPOP k 0"), "*-1\r\n+x\r\n");
        CHECK(run_until(
            rig.loop, [&] { return client.output() == "*-1\r\n+x\r\n"; }, std::chrono::seconds(1)));
    }
}

TEST_CASE("lease: after an error it is lent again once it has proven to owe nothing") {
    SessionRig rig;
    rig.valkey.answers["EVAL x 0"] = "-ERR x\r\n";
    rig.valkey.answers["BLPOP k 0"] = "-WRONGTYPE x\r\n";
    FakeClient& client = rig.make_ready();
    std::string expected;
    for (const std::string line : {"EVAL x 0", "BLPOP k 0", "EVAL x 0"}) {
        client.ask({line});
        expected += rig.valkey.answers[line];
        REQUIRE(rig.run_until_output(client, expected));
        REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    }
    CHECK(rig.valkey.challenges_asked == 3);
    CHECK(rig.valkey.peer_count() == 2);
}

TEST_CASE("lease: only of a script's text is it asked whether more is left over") {
    const std::vector<std::pair<std::string, size_t>> replies{
        {":1\r\n", 0},  {"$-1\r\n", 0},    {"$3\r\nabc\r\n", 0},    {"*2\r\n:1\r\n$1\r\na\r\n", 0},
        {"+OK\r\n", 1}, {"-ERR x\r\n", 1}, {"*1\r\n-ERR x\r\n", 1}, {"*2\r\n:1\r\n+x\r\n", 1},
    };
    for (const auto& [reply, count] : replies) {
        const std::string& shown = reply;
        CAPTURE(shown);
        SessionRig rig;
        rig.valkey.answers["EVAL x 0"] = reply;
        FakeClient& client = rig.make_ready();
        client.ask({"EVAL x 0"});
        REQUIRE(rig.run_until_output(client, reply));
        REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
        CHECK(rig.valkey.challenges_asked == count);
    }
}

TEST_CASE("lease: a transaction is asked after when a script was in it") {
    SessionRig rig;
    rig.valkey.answers["EVAL x 0"] = "+QUEUED\r\n";
    rig.valkey.answers["EXEC"] = "*1\r\n:1\r\n";
    FakeClient& client = rig.make_ready();
    std::string expected;
    const auto run = [&](const std::string& line, const std::string& reply) {
        client.ask({line});
        expected += reply;
        REQUIRE(rig.run_until_output(client, expected));
    };
    run("MULTI", "+MULTI\r\n");
    run("GET a", "+GET a\r\n");
    run("EXEC", "*1\r\n:1\r\n");
    CHECK(rig.valkey.challenges_asked == 0);
    run("MULTI", "+MULTI\r\n");
    run("EVAL x 0", "+QUEUED\r\n");
    run("EXEC", "*1\r\n:1\r\n");
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    CHECK(rig.valkey.challenges_asked == 1);
    CHECK(rig.valkey.peer_count() == 2);
}

}  // namespace
}  // namespace nearkey::session_lease_test
