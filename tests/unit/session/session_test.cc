// One client's commands, and the bytes that come back for them.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_test {
namespace {

TEST_CASE("session: replies keep the order of the commands, forwarded and local ones mixed") {
    SessionRig rig;
    for (const char* command : {"GET a", "SET b 1", "GET c"})
        rig.silence(command);
    FakeClient& client = rig.make_ready();
    client.ask({local("1"), "GET a", local("2"), "SET b 1", local("3"), local("4"), "GET c"});
    REQUIRE(rig.run_until_asked("GET c", 1));
    rig.settle();
    CHECK(client.output() == local_answer("1"));
    rig.valkey.send(0, "+a\r\n+b\r\n+c\r\n");
    CHECK(rig.run_until_output(client, local_answer("1") + "+a\r\n" + local_answer("2") + "+b\r\n" +
                                           local_answer("3") + local_answer("4") + "+c\r\n"));
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("session: a pipeline of a hundred commands comes back with few writes") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    std::vector<std::string> lines;
    std::string expected;
    for (int i = 0; i < 100; ++i) {
        lines.push_back("GET " + std::to_string(i));
        expected += "+GET " + std::to_string(i) + "\r\n";
    }
    client.ask(lines);
    CHECK(rig.run_until_output(client, expected));
    CHECK(client.socket.writes < 10);
}

TEST_CASE("session: two clients on one connection get their own replies") {
    SessionRig rig;
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    first.ask({"GET a", "GET b"});
    second.ask({"GET c"});
    first.ask({"GET d"});
    CHECK(rig.run_until_output(first, "+GET a\r\n+GET b\r\n+GET d\r\n"));
    CHECK(rig.run_until_output(second, "+GET c\r\n"));
    CHECK(rig.valkey.peer_count() == 1);
}

TEST_CASE("session: a client that leaves takes nobody else's reply with it") {
    SessionRig rig;
    rig.silence("GET a");
    FakeClient& leaver = rig.make_ready();
    FakeClient& stayer = rig.add_client();
    rig.silence("GET b");
    leaver.ask({"GET a"});
    stayer.ask({"GET b"});
    REQUIRE(rig.run_until_asked("GET b", 1));
    leaver.session.abort();
    CHECK(rig.is_ended(leaver));
    rig.valkey.send(0, "+for a\r\n+for b\r\n");
    CHECK(rig.run_until_output(stayer, "+for b\r\n"));
    CHECK(leaver.output().empty());
}

TEST_CASE("session: QUIT is answered in its turn, what follows is ignored, and it ends") {
    SessionRig rig;
    rig.silence("GET a");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "QUIT", "SET b 1"});
    CHECK_FALSE(client.socket.is_reading);
    client.ask({"SET c 1"});
    REQUIRE(rig.run_until_asked("GET a", 1));
    CHECK_FALSE(rig.is_ended(client));
    rig.valkey.send(0, "$-1\r\n");
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "$-1\r\n+OK\r\n");
    CHECK(rig.valkey.times_asked("SET b 1") == 0);
    CHECK(rig.valkey.times_asked("SET c 1") == 0);
}

TEST_CASE("session: a protocol error is told after the replies before it, then the client ends") {
    SessionRig rig;
    rig.silence("GET a");
    FakeClient& client = rig.make_ready();
    client.send(encoded("GET a") + "*1\r\n:3\r\n" + encoded("SET b 1"));
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.settle();
    CHECK(client.output().empty());
    rig.valkey.send(0, "$-1\r\n");
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "$-1\r\n-ERR Protocol error: expected '$', got ':'\r\n");
    CHECK(rig.valkey.times_asked("SET b 1") == 0);
    CHECK(rig.metrics.protocol_errors_total == 1);
}

TEST_CASE("session: an HTTP request is closed without an answer") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n");
    CHECK(rig.is_ended(client));
    CHECK(client.output().empty());
    CHECK(rig.metrics.security_closes_total == 1);
}

TEST_CASE("session: with too many in flight reading pauses, and goes on at the half") {
    SessionRig rig;
    rig.terms.limits.in_flight_per_client_max = 4;
    for (const char* key : {"0", "1", "2", "3", "4", "5"})
        rig.silence(std::string("GET ") + key);
    FakeClient& client = rig.make_ready();
    client.ask({"GET 0", "GET 1", "GET 2", "GET 3", "GET 4", "GET 5"});
    REQUIRE(rig.run_until_asked("GET 3", 1));
    CHECK_FALSE(client.socket.is_reading);
    rig.valkey.send(0, "+0\r\n");
    rig.run_until_read(0);
    CHECK_FALSE(client.socket.is_reading);
    CHECK(rig.valkey.times_asked("GET 4") == 0);
    rig.valkey.send(0, "+1\r\n");
    REQUIRE(rig.run_until_asked("GET 5", 1));
    rig.valkey.send(0, "+2\r\n+3\r\n+4\r\n+5\r\n");
    CHECK(rig.run_until_output(client, "+0\r\n+1\r\n+2\r\n+3\r\n+4\r\n+5\r\n"));
    CHECK(client.socket.is_reading);
    CHECK(rig.metrics.clients_paused_in_flight_total >= 1);
}

TEST_CASE("session: with too much output unread nothing is run until it is taken") {
    SessionRig rig;
    rig.terms.limits.output_per_client_high_water = 10;
    FakeClient& client = rig.make_ready();
    client.socket.room = 0;
    client.ask({local("0123456789"), local("a")});
    rig.settle();
    CHECK(client.output().empty());
    CHECK(client.session.facts().commands == 1);
    CHECK(rig.metrics.clients_paused_output_total == 1);
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, local_answer("0123456789") + local_answer("a")));
    CHECK(client.socket.is_reading);
}

TEST_CASE("session: a client that does not read is closed at output_per_client_max") {
    SessionRig rig;
    rig.terms.limits.output_per_client_max = 1000;
    rig.valkey.answers["GET big"] = "$2000\r\n" + std::string(2000, 'v') + "\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"GET big"});
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output().empty());
    CHECK(rig.metrics.clients_closed_output_total == 1);
}

TEST_CASE("session: a command that grows beyond input_per_client_max closes the client") {
    SessionRig rig;
    rig.terms.limits.input_per_client_max = 100;
    FakeClient& client = rig.make_ready();
    client.send("*2\r\n$3\r\nGET\r\n$200\r\n" + std::string(80, 'k'));
    CHECK_FALSE(rig.is_ended(client));
    client.send(std::string(50, 'k'));
    CHECK(rig.is_ended(client));
    CHECK(rig.metrics.clients_closed_input_total == 1);
    CHECK(rig.metrics.client_memory_bytes == 0);
}

TEST_CASE("session: one client's commands of one turn are bounded, the rest runs in the next") {
    SessionRig rig;
    rig.terms.limits.commands_per_turn_max = 2;
    FakeClient& client = rig.make_ready();
    std::vector<std::string> lines;
    std::string expected;
    for (const char* word : {"1", "2", "3", "4", "5"}) {
        lines.push_back(local(word));
        expected += local_answer(word);
    }
    client.ask(lines);
    CHECK_FALSE(client.socket.is_reading);
    CHECK(rig.run_until_output(client, expected));
    CHECK(client.socket.is_reading);
    CHECK(rig.metrics.clients_yielded_total == 2);
}

TEST_CASE("session: one that is drained finishes what it owes and runs nothing more") {
    SessionRig rig;
    rig.silence("GET a");
    FakeClient& client = rig.make_ready();
    FakeClient& idle = rig.add_client();
    client.ask({"GET a"});
    REQUIRE(rig.run_until_asked("GET a", 1));
    client.session.drain();
    idle.session.drain();
    CHECK(rig.is_ended(idle));
    CHECK_FALSE(rig.is_ended(client));
    client.ask({"SET b 1"});
    rig.valkey.send(0, "+done\r\n");
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "+done\r\n");
    CHECK(rig.valkey.times_asked("SET b 1") == 0);
}

TEST_CASE("session: drained, a client that can be told so is served what it has sent by then") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.socket.can_refuse = true;
    client.session.drain();
    CHECK(client.socket.is_refusing);
    client.ask({"SET b 1"});
    rig.settle();
    CHECK_FALSE(rig.is_ended(client));
    client.session.on_end();
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "+SET b 1\r\n");
}

TEST_CASE("session: drained while it waits in a blocking command, it is served that, too") {
    SessionRig rig;
    rig.silence("BLPOP l 0");
    FakeClient& client = rig.make_ready();
    client.socket.can_refuse = true;
    client.ask({"BLPOP l 0"});
    REQUIRE(rig.run_until_asked("BLPOP l 0", 1));
    client.session.drain();
    rig.settle();
    CHECK_FALSE(rig.is_ended(client));
    rig.valkey.send(rig.valkey.peer_of("BLPOP l 0"), "+popped\r\n");
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "+popped\r\n");
}

TEST_CASE("session: a client that sends no more still gets what it asked for") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "EVAL x 0", "GET b"});
    client.session.on_end();
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "+GET a\r\n+EVAL x 0\r\n+GET b\r\n");
}

TEST_CASE("session: what a client sent before it was lost is run, once") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.socket.is_lost = true;
    client.ask({"SET a 1", "EVAL x 0", "SET b 1"});
    client.session.on_stream_lost();
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output().empty());
    for (const char* command : {"SET a 1", "EVAL x 0", "SET b 1"})
        CHECK(rig.valkey.times_asked(command) == 1);
}

TEST_CASE("session: input cut at every byte gives the same output") {
    SessionRig rig;
    FakeClient& whole = rig.make_ready();
    const std::string input = encoded("GET a") + "\r\nNEARKEY 'in line'\r\n" + encoded("HELLO 3") +
                              encoded("SET b '\r\n'") + "*0\r\n" + encoded("EVAL x 0") +
                              encoded("SELECT 0") + encoded("GET c") + "*1\r\n$-1\r\n";
    whole.send(input);
    REQUIRE(rig.run_until_ended(whole));
    const std::string expected = whole.output();
    CHECK(expected.ends_with("+GET c\r\n-ERR Protocol error: invalid bulk length\r\n"));
    for (size_t cut = 1; cut < input.size(); ++cut) {
        CAPTURE(cut);
        FakeClient& client = rig.add_client();
        client.send(input.substr(0, cut));
        rig.settle();
        client.send(input.substr(cut));
        REQUIRE(rig.run_until_ended(client));
        std::string output = client.output();
        CHECK(output == expected);
    }
    FakeClient& bytewise = rig.add_client();
    for (const char byte : input)
        bytewise.send({&byte, 1});
    REQUIRE(rig.run_until_ended(bytewise));
    CHECK(bytewise.output() == expected);
}

}  // namespace
}  // namespace nearkey::session_test
