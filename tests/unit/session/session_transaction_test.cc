// Transactions: whole ones over the shared connection, the others over a lease until their end.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_transaction_test {
namespace {

using Lines = std::vector<std::string>;

const std::string kLost = "-UPSTREAMLOST the connection to Valkey was lost; may have run\r\n";
const std::string kDown = "-UPSTREAMDOWN Valkey can't be reached; not sent\r\n";
const std::string kLate = "-UPSTREAMTIMEOUT Valkey did not answer in time; may have run\r\n";

TEST_CASE("transaction: one that arrives whole is one unit on the shared connection") {
    SessionRig rig;
    FakeClient& first = rig.make_ready();
    FakeClient& second = rig.add_client();
    second.ask({"GET x"});
    first.ask({"GET a", "MULTI", "SET b 1", "INCR c", "EXEC", "GET d"});
    second.ask({"GET y"});
    const Lines block{"GET x", "GET a", "MULTI", "SET b 1", "INCR c", "EXEC", "GET d", "GET y"};
    CHECK(rig.run_until_output(first,
                               "+GET a\r\n+MULTI\r\n+SET b 1\r\n+INCR c\r\n+EXEC\r\n+GET d\r\n"));
    CHECK(rig.run_until_output(second, "+GET x\r\n+GET y\r\n"));
    const Lines asked = rig.valkey.asked(0);
    CHECK(Lines(asked.end() - static_cast<ptrdiff_t>(block.size()), asked.end()) == block);
    CHECK(rig.valkey.peer_count() == 1);
    CHECK(rig.metrics.transactions_whole_total == 1);
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("transaction: a whole one may end with DISCARD") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"multi", "SET a x", "GET a", "DISCARD", "GET b"});
    CHECK(rig.run_until_output(client, "+multi\r\n+SET a x\r\n+GET a\r\n+DISCARD\r\n+GET b\r\n"));
    CHECK(rig.valkey.peer_count() == 1);
    CHECK(rig.metrics.transactions_whole_total == 1);
}

TEST_CASE("transaction: one with inline commands goes by steps") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.send("\r\nmulti\r\nSET a 'x y'\r\n\r\n" + encoded("GET a") + "DISCARD\r\nGET b\r\n");
    CHECK(rig.run_until_output(client, "+multi\r\n+SET a x y\r\n+GET a\r\n+DISCARD\r\n+GET b\r\n"));
    CHECK(rig.metrics.transactions_whole_total == 0);
}

TEST_CASE("transaction: a whole one has its turn between answers of our own") {
    SessionRig rig;
    for (const char* line : {"MULTI", "SET a 1", "EXEC"})
        rig.silence(line);
    FakeClient& client = rig.make_ready();
    client.ask({local("1"), "MULTI", "SET a 1", "EXEC", local("2")});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    CHECK(client.output() == local_answer("1"));
    rig.valkey.send(0, "+OK\r\n+QUEUED\r\n");
    rig.run_until_read(0);
    CHECK(client.output() == local_answer("1") + "+OK\r\n+QUEUED\r\n");
    rig.valkey.send(0, "*1\r\n+OK\r\n");
    CHECK(rig.run_until_output(
        client, local_answer("1") + "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n" + local_answer("2")));
}

TEST_CASE("transaction: a whole one that waits in vain fails as a whole and is never sent") {
    SessionRig rig;
    rig.options.queue_timeout_ms = 40;
    FakeClient& client = rig.make_ready();
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    client.ask({"MULTI", "SET a 1", "INCR b", "EXEC"});
    const std::string expected = kDown + kDown + kDown + kDown;
    CHECK(rig.run_until_output(client, expected));
    rig.valkey.listen();
    rig.options.queue_timeout_ms = 10'000;
    client.ask({"GET c"});
    CHECK(rig.run_until_output(client, expected + "+GET c\r\n"));
    for (const char* line : {"MULTI", "SET a 1", "INCR b", "EXEC"})
        CHECK(rig.valkey.times_asked(line) == 0);
}

TEST_CASE("transaction: a whole one that is lost in the middle fails and is not sent again") {
    SessionRig rig;
    rig.valkey.answers["MULTI"] = "+OK\r\n";
    rig.valkey.answers["GET a"] = "+QUE";
    rig.silence("EXEC");
    FakeClient& client = rig.make_ready();
    client.ask({"MULTI", "GET a", "EXEC"});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    rig.run_until_read(0);
    rig.valkey.close(0);
    CHECK(rig.run_until_output(client, "+OK\r\n" + kLost + kLost));
    client.ask({"GET b"});
    CHECK(rig.run_until_output(client, "+OK\r\n" + kLost + kLost + "+GET b\r\n"));
    CHECK(rig.valkey.times_asked("GET a") == 1);
    CHECK_FALSE(rig.is_ended(client));
}

TEST_CASE("transaction: a client that leaves in a whole one takes nobody else's reply with it") {
    SessionRig rig;
    rig.valkey.answers["MULTI"] = "+OK\r\n";
    for (const char* line : {"SET a 1", "EXEC", "GET b"})
        rig.silence(line);
    FakeClient& leaver = rig.make_ready();
    FakeClient& stayer = rig.add_client();
    leaver.ask({"MULTI", "SET a 1", "EXEC"});
    stayer.ask({"GET b"});
    REQUIRE(rig.run_until_output(leaver, "+OK\r\n"));
    leaver.session.abort();
    CHECK(rig.metrics.tombstones == 1);
    rig.valkey.send(0, "+QUEUED\r\n*1\r\n+OK\r\n+mine\r\n");
    CHECK(rig.run_until_output(stayer, "+mine\r\n"));
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("transaction: one with a command that is not shared goes over a lease") {
    for (const std::string alone : {"EVAL x 0", "BLPOP k 0", "WHAT now", "MULTI", "WATCH k"}) {
        CAPTURE(alone);
        SessionRig rig;
        FakeClient& client = rig.make_ready();
        client.ask({"GET a", "MULTI", "SET b 1", alone, "EXEC"});
        const std::string expected = "+GET a\r\n+MULTI\r\n+SET b 1\r\n+" + alone + "\r\n+EXEC\r\n";
        CHECK(rig.run_until_output(client, expected));
        const size_t leased = rig.valkey.peer_of("SET b 1");
        CHECK(leased != 0);
        const Lines asked = rig.valkey.asked_when_ready(leased);
        CHECK(asked == Lines{"CLIENT SETNAME ", "MULTI", "SET b 1", alone, "EXEC"});
        client.ask({"GET c"});
        CHECK(rig.run_until_output(client, expected + "+GET c\r\n"));
        CHECK(rig.valkey.peer_of("GET c") == 0);
        CHECK(rig.metrics.transactions_whole_total == 0);
        CHECK(rig.node->leases().leased().size() == 0);
    }
}

TEST_CASE("transaction: one that is cut in two reads goes over a lease, and gives it back") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"MULTI", "SET a 1"});
    REQUIRE(rig.run_until_output(client, "+MULTI\r\n+SET a 1\r\n"));
    const size_t leased = rig.valkey.peer_of("MULTI");
    CHECK(leased != 0);
    CHECK(rig.node->leases().leased().size() == 1);
    client.ask({"GET b", "EXEC", "GET c"});
    CHECK(rig.run_until_output(client, "+MULTI\r\n+SET a 1\r\n+GET b\r\n+EXEC\r\n+GET c\r\n"));
    CHECK(rig.valkey.peer_of("GET b") == leased);
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.valkey.is_open(leased));
    client.ask({"EVAL x 0"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    CHECK(rig.valkey.peer_of("EVAL x 0") == leased);
}

TEST_CASE("transaction: cut at every byte it gives the same output") {
    const Lines lines{"GET a",    "MULTI",   "SET b 1", "GET c", "EXEC",
                      local("x"), "WATCH d", "MULTI",   "EXEC",  "GET e"};
    std::string input;
    for (const std::string& line : lines)
        input += encoded(line);
    SessionRig rig;
    FakeClient& whole = rig.make_ready();
    whole.send(input);
    const std::string expected = "+GET a\r\n+MULTI\r\n+SET b 1\r\n+GET c\r\n+EXEC\r\n" +
                                 local_answer("x") + "+WATCH d\r\n+MULTI\r\n+EXEC\r\n+GET e\r\n";
    CHECK(rig.run_until_output(whole, expected));
    for (size_t cut = 1; cut < input.size(); ++cut) {
        CAPTURE(cut);
        FakeClient& client = rig.add_client();
        client.send(input.substr(0, cut));
        rig.settle();
        client.send(input.substr(cut));
        CHECK(rig.run_until_output(client, expected));
    }
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("transaction: one that is longer than in_flight_per_client_max goes over a lease") {
    SessionRig rig;
    rig.terms.limits.in_flight_per_client_max = 4;
    FakeClient& client = rig.make_ready();
    client.ask({"MULTI", "SET a 1", "SET b 1", "EXEC"});
    std::string expected = "+MULTI\r\n+SET a 1\r\n+SET b 1\r\n+EXEC\r\n";
    CHECK(rig.run_until_output(client, expected));
    CHECK(rig.valkey.peer_count() == 1);
    CHECK(rig.metrics.transactions_whole_total == 1);
    client.ask({"MULTI", "SET a 1", "SET b 1", "SET c 1", "SET d 1", "SET e 1", "EXEC", "GET f"});
    expected += "+MULTI\r\n+SET a 1\r\n+SET b 1\r\n+SET c 1\r\n+SET d 1\r\n+SET e 1\r\n";
    CHECK(rig.run_until_output(client, expected + "+EXEC\r\n+GET f\r\n"));
    CHECK(rig.valkey.peer_of("MULTI") != 0);
    CHECK(rig.metrics.transactions_whole_total == 1);
}

TEST_CASE("transaction: in flight a whole one counts as its commands") {
    SessionRig rig;
    rig.terms.limits.in_flight_per_client_max = 4;
    for (const char* line : {"MULTI", "SET a 1", "SET b 1", "EXEC", "GET c"})
        rig.silence(line);
    FakeClient& client = rig.make_ready();
    client.ask({"MULTI", "SET a 1", "SET b 1", "EXEC", "GET c"});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    CHECK_FALSE(client.socket.is_reading);
    CHECK(rig.metrics.clients_paused_in_flight_total == 1);
    rig.valkey.send(0, "+OK\r\n+QUEUED\r\n");
    REQUIRE(rig.run_until_asked("GET c", 1));
    rig.valkey.send(0, "+QUEUED\r\n*0\r\n+c\r\n");
    CHECK(run_until(rig.loop, [&] { return client.output().ends_with("*0\r\n+c\r\n"); }));
}

TEST_CASE("transaction: a lost lease is answered with errors, and the client is closed") {
    SessionRig rig;
    for (const char* line : {"SET b 1", "EXEC", "GET after"})
        rig.silence(line);
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "MULTI", "SET b 1", "EXEC", "GET after"});
    REQUIRE(rig.run_until_asked("GET after", 1));
    const size_t leased = rig.valkey.peer_of("EXEC");
    rig.run_until_read(leased);
    rig.valkey.close(leased);
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "+WATCH a\r\n+MULTI\r\n" + kLost + kLost + kLost);
    CHECK(rig.metrics.clients_closed_state_total == 1);
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.valkey.times_asked("SET b 1") == 1);
}

TEST_CASE("transaction: a lease that is lost while nothing is owed closes the client") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "GET a"});
    REQUIRE(rig.run_until_output(client, "+WATCH a\r\n+GET a\r\n"));
    client.socket.room = 0;
    client.ask({local("x")});
    rig.settle();
    rig.valkey.close(rig.valkey.peer_of("WATCH a"));
    REQUIRE(run_until(rig.loop, [&] { return rig.node->leases().leased().size() == 0; }));
    rig.settle();
    // What is written already still leaves.
    CHECK_FALSE(rig.is_ended(client));
    client.ask({"SET b 1"});
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output().ends_with(local_answer("x")));
    CHECK(rig.metrics.clients_closed_state_total == 1);
    CHECK(rig.valkey.times_asked("SET b 1") == 0);
}

TEST_CASE("transaction: one whose command times out closes the client") {
    SessionRig rig;
    rig.options.request_timeout_ms = 40;
    for (const char* line : {"SET b 1", "MULTI", "SET c 1"})
        rig.silence(line);
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "SET b 1", "MULTI", "SET c 1"});
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == "+WATCH a\r\n" + kLate + kLate + kLate);
    CHECK(rig.metrics.clients_closed_state_total == 1);
    CHECK(rig.run_until_closed(rig.valkey.peer_of("WATCH a")));
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("transaction: one that finds no server is refused, and the client is closed") {
    SessionRig rig;
    rig.options.queue_timeout_ms = 40;
    FakeClient& client = rig.make_ready();
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    client.ask({"WATCH a", "SET a 1"});
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output() == kDown + kDown);
    rig.valkey.listen();
    FakeClient& next = rig.add_client();
    rig.options.queue_timeout_ms = 10'000;
    next.ask({"GET b"});
    CHECK(rig.run_until_output(next, "+GET b\r\n"));
    CHECK(rig.valkey.times_asked("SET a 1") == 0);
}

// A client in a database to which a lease must SELECT, which is refused from now on.
FakeClient& make_busy(SessionRig& rig) {
    FakeClient& client = rig.make_ready();
    client.ask({"SELECT 3"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    client.socket.written.clear();
    rig.valkey.answers["SELECT 3"] = "-BUSY running\r\n";
    return client;
}

TEST_CASE("transaction: MULTI that a busy server refuses to set up is owed, and EXEC fails") {
    SessionRig rig;
    FakeClient& client = make_busy(rig);
    client.ask({"MULTI"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    client.ask({"INCR n"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n-BUSY running\r\n"));
    CHECK(rig.valkey.times_asked("MULTI") == 0);
    rig.valkey.answers.erase("SELECT 3");
    client.ask({"INCR n", "EXEC"});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    const Lines sent = rig.valkey.asked_when_ready(rig.valkey.peer_of("EXEC"));
    CHECK(sent == Lines{"CLIENT SETNAME ", "MULTI", "GET", "INCR n", "EXEC"});
}

TEST_CASE("transaction: MULTI that is owed goes before the first command that is taken") {
    SessionRig rig;
    FakeClient& client = make_busy(rig);
    client.ask({"MULTI"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    rig.valkey.answers.erase("SELECT 3");
    client.ask({"INCR n", "EXEC"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n+INCR n\r\n+EXEC\r\n"));
    const Lines sent = rig.valkey.asked_when_ready(rig.valkey.peer_of("EXEC"));
    CHECK(sent == Lines{"CLIENT SETNAME ", "MULTI", "INCR n", "EXEC"});
}

TEST_CASE("transaction: one that is owed ends as the busy server would end it") {
    const std::string aborted = "-EXECABORT Transaction discarded because of: BUSY running\r\n";
    for (const auto& [lines, expected] : std::vector<std::pair<Lines, std::string>>{
             {{"EXEC"}, aborted},
             {{"INCR n", "EXEC"}, "-BUSY running\r\n" + aborted},
             {{"DISCARD"}, "+OK\r\n"},
             {{"INCR n", "DISCARD"}, "-BUSY running\r\n+OK\r\n"},
             {{"RESET"}, "+RESET\r\n"}}) {
        for (const bool is_pipelined : {false, true}) {
            const std::string& shown = expected;
            CAPTURE(shown);
            CAPTURE(is_pipelined);
            SessionRig rig;
            FakeClient& client = make_busy(rig);
            client.ask({"MULTI"});
            if (!is_pipelined) REQUIRE(rig.run_until_output(client, "+OK\r\n"));
            for (const std::string& line : lines)
                client.ask({line});
            REQUIRE(rig.run_until_output(client, "+OK\r\n" + expected));
            client.ask({"GET a"});
            CHECK(rig.run_until_output(client, "+OK\r\n" + expected + "+GET a\r\n"));
            CHECK(rig.valkey.times_asked("MULTI") == 0);
            CHECK(rig.node->leases().leased().size() == 0);
        }
    }
}

TEST_CASE("transaction: one that is owed is lost with the server's other errors") {
    SessionRig rig;
    FakeClient& client = make_busy(rig);
    client.ask({"MULTI"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    rig.valkey.answers["SELECT 3"] = "-ERR DB index is out of range\r\n";
    client.ask({"INCR n", "EXEC"});
    REQUIRE(rig.run_until_ended(client));
    CHECK(client.output().starts_with("+OK\r\n-ERR DB index is out of range"));
    CHECK(rig.valkey.times_asked("MULTI") == 0);
    CHECK(rig.valkey.times_asked("INCR n") == 0);
}

TEST_CASE("transaction: one that is owed is spoilt by a command that finds no connection left") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 200;
    FakeClient& client = make_busy(rig);
    client.ask({"MULTI"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    rig.valkey.answers.erase("SELECT 3");
    rig.silence("BLPOP k 0");
    // It waits for the connection that could not be set up.
    FakeClient& other = rig.add_client();
    other.ask({"BLPOP k 0"});
    client.ask({"INCR n"});
    REQUIRE(rig.run_until_asked("BLPOP k 0", 1));
    const std::string refused =
        "-ERR nearkey has no dedicated connection left (upstream.dedicated_max)\r\n";
    REQUIRE(rig.run_until_output(client, "+OK\r\n" + refused));
    rig.valkey.send(rig.valkey.peer_of("BLPOP k 0"), "+done\r\n");
    REQUIRE(rig.run_until_output(other, "+done\r\n"));
    client.ask({"INCR m", "EXEC"});
    REQUIRE(rig.run_until_asked("EXEC", 1));
    const Lines sent = rig.valkey.asked_when_ready(rig.valkey.peer_of("EXEC"));
    CHECK(Lines(sent.end() - 4, sent.end()) == Lines{"MULTI", "GET", "INCR m", "EXEC"});
}

TEST_CASE("transaction: MULTI that is owed goes before an unknown command as well") {
    SessionRig rig;
    FakeClient& client = make_busy(rig);
    client.ask({"MULTI"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    rig.valkey.answers.erase("SELECT 3");
    client.ask({"WHAT now", "EXEC"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n+WHAT now\r\n+EXEC\r\n"));
    const Lines sent = rig.valkey.asked_when_ready(rig.valkey.peer_of("EXEC"));
    CHECK(Lines(sent.end() - 3, sent.end()) == Lines{"MULTI", "WHAT now", "EXEC"});
}

}  // namespace
}  // namespace nearkey::session_transaction_test
