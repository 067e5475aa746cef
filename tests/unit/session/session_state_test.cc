// Sessions that move: protocols, databases, leases, and connections that fail under them.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_state_test {
namespace {

constexpr size_t kBig = size_t{1} << 20;

TEST_CASE("session: a reply cut in the middle after part of it has left closes the client") {
    SessionRig rig;
    rig.valkey.answers["GET big"] =
        "$" + std::to_string(kBig) + "\r\n" + std::string(kBig / 2, 'v');
    FakeClient& client = rig.make_ready();
    rig.silence("GET after");
    client.ask({"SET a 1", "GET big", "GET after"});
    REQUIRE(run_until(rig.loop, [&] { return client.output().size() > kBig / 4; }));
    rig.valkey.close(0);
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output().starts_with("+SET a 1\r\n$1048576\r\nvvv"));
    CHECK(client.output().ends_with("vvv"));
    CHECK(rig.metrics.client_memory_bytes == 0);
}

TEST_CASE(
    "session: a reply cut in the middle before any of it has left is an error, or begins anew") {
    SessionRig rig;
    rig.valkey.answers["INCR a"] = "$10\r\nhalf";
    FakeClient& client = rig.make_ready();
    client.ask({"INCR a"});
    REQUIRE(rig.run_until_asked("INCR a", 1));
    rig.run_until_read(0);
    rig.valkey.close(0);
    const std::string error = "-UPSTREAMLOST the connection to Valkey was lost; may have run\r\n";
    CHECK(rig.run_until_output(client, error));
    // The new connection asks for the commands first.
    REQUIRE(rig.run_until_asked("COMMAND", 2));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    rig.valkey.answers["GET b"] = "$10\r\nhalf";
    client.ask({"GET b", local("x")});
    REQUIRE(rig.run_until_asked("GET b", 1));
    const size_t peer = rig.valkey.peer_of("GET b");
    rig.run_until_read(peer);
    rig.valkey.answers["GET b"] = "$5\r\nwhole\r\n";
    rig.valkey.close(peer);
    CHECK(rig.run_until_output(client, error + "$5\r\nwhole\r\n" + local_answer("x")));
}

TEST_CASE("session: a failure behind a read that is sent again waits for its turn") {
    SessionRig rig;
    rig.silence("GET a");
    rig.silence("INCR b");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "INCR b", local("c")});
    REQUIRE(rig.run_until_asked("INCR b", 1));
    rig.valkey.answers.clear();
    rig.valkey.close(0);
    CHECK(
        rig.run_until_output(client,
                             "+GET a\r\n-UPSTREAMLOST the connection to Valkey was lost; may have "
                             "run\r\n" +
                                 local_answer("c")));
    CHECK(rig.valkey.times_asked("INCR b") == 1);
}

TEST_CASE("session: a timeout is answered in its turn, and its late reply reaches nobody") {
    SessionRig rig;
    rig.options.request_timeout_ms = 30;
    rig.silence("GET a");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", local("b")});
    const std::string expected =
        "-UPSTREAMTIMEOUT Valkey did not answer in time; may have run\r\n" + local_answer("b");
    REQUIRE(rig.run_until_output(client, expected));
    rig.options.request_timeout_ms = 10'000;
    rig.silence("GET c");
    client.ask({"GET c"});
    REQUIRE(rig.run_until_asked("GET c", 1));
    rig.valkey.send(0, "+late\r\n+c\r\n");
    CHECK(rig.run_until_output(client, expected + "+c\r\n"));
}

TEST_CASE("session: EVAL goes over a lease, and the next GET waits for it") {
    SessionRig rig;
    rig.silence("EVAL x 0");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "EVAL x 0", "GET b"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    const size_t leased = rig.valkey.peer_of("EVAL x 0");
    CHECK(leased != rig.valkey.peer_of("GET a"));
    CHECK(client.output() == "+GET a\r\n");
    CHECK(rig.node->leases().leased().size() == 1);
    rig.settle();
    CHECK(rig.valkey.times_asked("GET b") == 0);
    CHECK_FALSE(client.socket.is_reading);
    rig.valkey.send(leased, "+done\r\n");
    CHECK(rig.run_until_output(client, "+GET a\r\n+done\r\n+GET b\r\n"));
    CHECK(rig.valkey.peer_of("GET b") == rig.valkey.peer_of("GET a"));
    CHECK(client.socket.is_reading);
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.valkey.is_open(leased));
}

TEST_CASE("session: the lease of a client that leaves is closed") {
    SessionRig rig;
    rig.silence("BLPOP k 0");
    FakeClient& client = rig.make_ready();
    client.ask({"BLPOP k 0"});
    REQUIRE(rig.run_until_asked("BLPOP k 0", 1));
    const size_t leased = rig.valkey.peer_of("BLPOP k 0");
    client.session.on_end();
    CHECK(rig.is_ended(client));
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(leased); }));
    CHECK(rig.metrics.tombstones == 0);
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("session: without a lease left a script is refused, in its turn") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 50;
    rig.silence("EVAL x 0");
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    first.ask({"EVAL x 0"});
    second.ask({"GET a", "EVAL y 0", "GET b"});
    CHECK(rig.run_until_output(second,
                               "+GET a\r\n-ERR nearkey has no dedicated connection left "
                               "(upstream.dedicated_max)\r\n+GET b\r\n"));
    CHECK(rig.metrics.upstream_dedicated_refused_total == 1);
}

TEST_CASE("session: HELLO switches the protocol only when nothing is owed") {
    SessionRig rig;
    rig.silence("GET a");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "HELLO 3", "GET b"});
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.settle();
    CHECK(client.output().empty());
    CHECK(rig.valkey.times_asked("GET b") == 0);
    rig.valkey.send(0, "*-1\r\n");
    const std::string hello = "%2\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:3\r\n";
    CHECK(rig.run_until_output(client, "*-1\r\n" + hello + "+GET b\r\n"));
    CHECK(rig.valkey.asked(rig.valkey.peer_of("GET b")).front() == "HELLO 3");
}

TEST_CASE("session: HELLO without a change of protocol waits for nothing") {
    SessionRig rig;
    rig.silence("GET a");
    rig.silence("GET b");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "HELLO 2", "HELLO 4", "HELLO x", "GET b"});
    REQUIRE(rig.run_until_asked("GET b", 1));
    CHECK(client.output().empty());
    rig.valkey.send(0, "+a\r\n+b\r\n");
    CHECK(
        rig.run_until_output(client,
                             "+a\r\n*4\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:2\r\n"
                             "-NOPROTO unsupported protocol version\r\n"
                             "-ERR Protocol version is not an integer or out of range\r\n+b\r\n"));
}

TEST_CASE("session: SELECT of a new database is asked of the server, whose words are passed on") {
    SessionRig rig;
    rig.valkey.answers["SELECT 99"] = "-ERR DB index is out of range\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"SELECT 99", "GET a", "SELECT 3", "GET b", "SELECT 0", "GET c"});
    CHECK(rig.run_until_output(
        client, "-ERR DB index is out of range\r\n+GET a\r\n+OK\r\n+GET b\r\n+OK\r\n+GET c\r\n"));
    CHECK(rig.valkey.peer_of("GET a") == 0);
    CHECK(rig.valkey.peer_of("GET c") == 0);
    const std::vector<std::string>& asked = rig.valkey.asked(rig.valkey.peer_of("GET b"));
    REQUIRE(asked.size() >= 2);
    CHECK(asked[1] == "SELECT 3");
    CHECK(rig.valkey.times_asked("SELECT 0") == 0);
}

TEST_CASE("session: a SELECT that fails on the way refuses what follows until a SELECT works") {
    SessionRig rig;
    rig.silence("SELECT 3");
    FakeClient& client = rig.make_ready();
    rig.options.queue_timeout_ms = 200;
    client.ask({"SELECT 3", "SET a 1", "EVAL x 0", local("e")});
    REQUIRE(rig.run_until_asked("SELECT 3", 1));
    rig.valkey.close(rig.valkey.peer_of("SELECT 3"));
    const std::string refused = "-UPSTREAMDOWN the database could not be selected; not sent\r\n";
    std::string expected = "-UPSTREAMDOWN Valkey can't be reached; not sent\r\n" + refused +
                           refused + local_answer("e");
    CHECK(rig.run_until_output(client, expected));
    rig.valkey.answers.erase("SELECT 3");
    rig.options.queue_timeout_ms = 10'000;
    client.ask({"GET b", "SELECT 3", "SET c 1"});
    expected += refused + "+OK\r\n+SET c 1\r\n";
    CHECK(rig.run_until_output(client, expected));
    CHECK(rig.valkey.times_asked("SET a 1") == 0);
    CHECK(rig.valkey.times_asked("EVAL x 0") == 0);
    CHECK(rig.valkey.times_asked("GET b") == 0);
    CHECK(rig.valkey.asked(rig.valkey.peer_of("SET c 1"))[1] == "SELECT 3");
}

TEST_CASE("session: a SELECT that was refused leaves the database as it was") {
    SessionRig rig;
    rig.silence("SELECT 3");
    FakeClient& client = rig.make_ready();
    client.ask({"SELECT 3", "SET a 1"});
    REQUIRE(rig.run_until_asked("SELECT 3", 1));
    rig.valkey.send(rig.valkey.peer_of("SELECT 3"), "-NOPERM no\r\n");
    CHECK(rig.run_until_output(client, "-NOPERM no\r\n+SET a 1\r\n"));
    CHECK(rig.valkey.peer_of("SET a 1") == 0);
}

TEST_CASE("session: RESET goes back to protocol 2 and the first database") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"HELLO 3", "SELECT 3", "GET a", "RESET", "GET b"});
    REQUIRE(rig.run_until_asked("GET b", 1));
    CHECK(rig.valkey.peer_of("GET b") == 0);
    CHECK(rig.valkey.peer_of("GET a") != 0);
}

TEST_CASE("session: an unknown command goes alone, and its connection is used by nobody after") {
    SessionRig rig;
    rig.silence("WHAT now");
    FakeClient& client = rig.make_ready();
    client.ask({"GET a", "WHAT now", "GET b"});
    REQUIRE(rig.run_until_asked("WHAT now", 1));
    const size_t alone = rig.valkey.peer_of("WHAT now");
    CHECK(alone != 0);
    CHECK(rig.valkey.times_asked("GET b") == 0);
    rig.valkey.send(alone, "+OK\r\n");
    CHECK(rig.run_until_output(client, "+GET a\r\n+OK\r\n+GET b\r\n"));
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(alone); }));
}

TEST_CASE("session: an unknown command that the server refused costs no connection") {
    SessionRig rig;
    rig.valkey.answers["WHAT now"] = "-ERR unknown command\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"WHAT now"});
    REQUIRE(rig.run_until_output(client, "-ERR unknown command\r\n"));
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.in_flight == 0; }));
    client.ask({"EVAL x 0"});
    CHECK(rig.run_until_output(client, "-ERR unknown command\r\n+EVAL x 0\r\n"));
    CHECK(rig.valkey.peer_of("EVAL x 0") == rig.valkey.peer_of("WHAT now"));
}

TEST_CASE("session: with no connection left for its database a command is refused") {
    SessionRig rig;
    rig.options.connections_max = 1;
    FakeClient& client = rig.make_ready();
    client.ask({"SELECT 3", "GET a", "SELECT 0", "GET b"});
    CHECK(rig.run_until_output(client,
                               "-ERR nearkey has no connection left for another database or "
                               "protocol (upstream.connections_max)\r\n"
                               "-UPSTREAMDOWN the database could not be selected; not sent\r\n"
                               "+OK\r\n+GET b\r\n"));
    CHECK(rig.metrics.upstream_shared_refused_total == 1);
}

TEST_CASE("session: while Valkey is away commands wait, then fail in order") {
    SessionRig rig;
    rig.options.queue_timeout_ms = 40;
    FakeClient& client = rig.make_ready();
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    client.ask({"GET a", local("b"), "EVAL x 0"});
    const std::string down = "-UPSTREAMDOWN Valkey can't be reached; not sent\r\n";
    CHECK(rig.run_until_output(client, down + local_answer("b") + down));
    rig.valkey.listen();
    rig.options.queue_timeout_ms = 10'000;
    client.ask({"GET c"});
    CHECK(rig.run_until_output(client, down + local_answer("b") + down + "+GET c\r\n"));
}

TEST_CASE("session: HELLO tells of the server's modules as each protocol has them") {
    SessionRig rig;
    const auto hello = [](int protocol, const std::string& module) {
        return std::string(protocol == 3 ? "%3" : "*6") +
               "\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:" + std::to_string(protocol) +
               "\r\n$7\r\nmodules\r\n*1\r\n" + module;
    };
    const std::string fields = "$4\r\nname\r\n$1\r\nm\r\n$3\r\nver\r\n:7\r\n";
    rig.valkey.answers["HELLO 2"] = hello(2, "*4\r\n" + fields);
    rig.valkey.answers["HELLO 3"] = hello(3, "%2\r\n" + fields);
    FakeClient& client = rig.make_ready();
    client.ask({"HELLO 3"});
    CHECK(rig.run_until_output(client, hello(3, "%2\r\n" + fields)));
    client.socket.written.clear();
    client.ask({"HELLO 2"});
    CHECK(rig.run_until_output(client, hello(2, "*4\r\n" + fields)));
}

}  // namespace
}  // namespace nearkey::session_state_test
