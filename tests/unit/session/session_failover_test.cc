// What a client with state of its own sees when another server becomes the primary.
#include "nearkey/session/session.h"

#include "failover_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_failover_test {
namespace {

using Lines = std::vector<std::string>;

const std::string kLost = "-UPSTREAMLOST the connection to Valkey was lost; may have run\r\n";
const std::string kUnblocked =
    "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> "
    "replica?)\r\n";
const std::string kReadonly = "-READONLY You can't write against a read only replica.\r\n";
const std::string kPopped = "*2\r\n$1\r\nk\r\n$1\r\nv\r\n";

// --- transactions ---

struct Transaction {
    Lines lines;             // all but the last have been answered
    bool is_last_in_flight;  // when the primary changes
    std::string output;      // what the client has got when it is closed
};

TEST_CASE("failover: a client in a transaction or WATCH is closed, wherever it stands") {
    const std::vector<Transaction> rows{
        {{"MULTI"}, false, "+OK\r\n"},
        {{"MULTI", "SET a 1"}, false, "+OK\r\n+QUEUED\r\n"},
        {{"MULTI", "SET a 1", "SET a 2"}, true, "+OK\r\n+QUEUED\r\n" + kLost},
        {{"WATCH a"}, false, "+OK\r\n"},
        {{"WATCH a", "GET a"}, false, "+OK\r\n+GET a\r\n"},
        {{"WATCH a"}, true, kLost},
        {{"WATCH a", "MULTI"}, false, "+OK\r\n+OK\r\n"},
        {{"WATCH a", "MULTI", "SET a 1", "EXEC"}, true, "+OK\r\n+OK\r\n+QUEUED\r\n" + kLost},
        {{"MULTI", "SET a 1", "EXEC"}, true, "+OK\r\n+QUEUED\r\n" + kLost},
        {{"MULTI", "BLPOP k 0"}, false, "+OK\r\n+QUEUED\r\n"},
        {{"WATCH a", "BLPOP k 0"}, true, "+OK\r\n"},
    };
    for (const Transaction& row : rows) {
        CAPTURE(row.lines.back());
        CAPTURE(row.lines.size());
        CAPTURE(row.is_last_in_flight);
        FailoverRig rig;
        rig.valkey.answers = {{"MULTI", "+OK\r\n"},
                              {"WATCH a", "+OK\r\n"},
                              {"SET a 1", "+QUEUED\r\n"},
                              {"BLPOP k 0", "+QUEUED\r\n"}};
        if (row.is_last_in_flight) rig.silence(row.lines.back());
        FakeClient& client = rig.make_ready();
        for (const std::string& line : row.lines) {
            client.ask({line});
            REQUIRE(rig.run_until_asked(line, 1));
            rig.run_until_read(rig.valkey.peer_of(line));
        }
        rig.fail_over();
        CHECK(rig.run_until_ended(client));
        CHECK(client.output() == row.output);
        CHECK(rig.node->leases().leased().size() == 0);
        CHECK(rig.is_other_spared(row.lines));
        CHECK(rig.metrics.clients_moved_blocked_total == 0);
    }
}

TEST_CASE("failover: a client of a shared connection goes on at the new primary, owed or not") {
    FailoverRig rig;
    rig.silence("GET slow");
    FakeClient& owed = rig.make_ready();
    FakeClient& idle = rig.add_client();
    idle.ask({"GET a"});
    REQUIRE(rig.run_until_output(idle, "+GET a\r\n"));
    owed.ask({"GET slow"});
    REQUIRE(rig.run_until_asked("GET slow", 1));
    rig.fail_over();
    idle.ask({"GET b"});
    owed.ask({"GET c"});
    CHECK(rig.run_until_asked_other("GET b", 1));
    CHECK(rig.run_until_asked_other("GET c", 1));
    CHECK(rig.valkey.times_asked("GET b") + rig.valkey.times_asked("GET c") == 0);
}

TEST_CASE("failover: one that had ended its transaction goes on") {
    FailoverRig rig;
    rig.valkey.answers = {{"WATCH a", "+OK\r\n"}, {"UNWATCH", "+OK\r\n"}};
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "UNWATCH"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n+OK\r\n"));
    rig.fail_over();
    client.ask({"WATCH a", "GET b"});
    CHECK(rig.run_until_output(client, "+OK\r\n+OK\r\n+WATCH a\r\n+GET b\r\n"));
    CHECK(rig.other.times_asked("WATCH a") == 1);
}

// --- a blocking command ---

// A client that waits in BLPOP k 0, at `valkey`.
struct BlockedRig : FailoverRig {
    FakeClient& make_blocked(const std::string& line = "BLPOP k 0") {
        silence(line);
        FakeClient& client = make_ready();
        client.ask({line});
        REQUIRE(run_until_asked(line, 1));
        peer = valkey.peer_of(line);
        run_until_read(peer);
        return client;
    }
    size_t peer = 0;
};

TEST_CASE("failover: a blocking command waits on at the new primary") {
    for (const std::string line : {"BLPOP k 0", "BLMPOP 0 1 k LEFT", "XREAD BLOCK 0 STREAMS k 0"}) {
        CAPTURE(line);
        BlockedRig rig;
        rig.other.answers[line] = "";
        FakeClient& client = rig.make_blocked(line);
        rig.fail_over();
        REQUIRE(rig.run_until_asked_other(line, 1));
        CHECK(rig.run_until_closed(rig.peer));
        CHECK(client.output().empty());
        rig.other.send(rig.other.peer_of(line), kPopped);
        CHECK(rig.run_until_output(client, kPopped));
        CHECK(rig.metrics.clients_moved_blocked_total == 1);
        CHECK(rig.metrics.tombstones == 0);
        CHECK(rig.metrics.upstream_lost_total == 0);
        client.ask({"GET a", "EVAL x 0"});
        CHECK(rig.run_until_output(client, kPopped + "+GET a\r\n+EVAL x 0\r\n"));
        CHECK(rig.node->leases().leased().size() == 0);
        CHECK(rig.metrics.in_flight == 0);
    }
}

TEST_CASE("failover: a blocking command waits on for the time that is left") {
    for (const bool is_over : {false, true}) {
        CAPTURE(is_over);
        BlockedRig rig;
        FakeClient& client = rig.make_blocked(is_over ? "BLPOP k 0.02" : "BLPOP k 1000");
        const uint64_t start_ms = rig.loop.now_ms();
        run_until(rig.loop, [&] { return rig.loop.now_ms() >= start_ms + 60; });
        rig.fail_over();
        REQUIRE(run_until(rig.loop, [&] { return !client.output().empty(); }));
        const std::string& words = client.output();
        CHECK(words.starts_with(is_over ? "+BLPOP k 0.001\r\n" : "+BLPOP k 999."));
        CHECK(words < "+BLPOP k 999.950");
    }
}

TEST_CASE("failover: the new primary knows a blocked client by its name") {
    BlockedRig rig;
    rig.silence("BLPOP k 0");
    FakeClient& client = rig.make_ready();
    client.ask({"CLIENT SETNAME me", "SELECT 3", "BLPOP k 0"});
    REQUIRE(rig.run_until_asked("BLPOP k 0", 1));
    rig.run_until_read(rig.valkey.peer_of("BLPOP k 0"));
    rig.fail_over();
    REQUIRE(rig.run_until_output(client, "+OK\r\n+OK\r\n+BLPOP k 0\r\n"));
    const size_t peer = rig.other.peer_of("BLPOP k 0");
    CHECK(rig.other.asked_when_ready(peer) == Lines{"CLIENT SETNAME me", "BLPOP k 0"});
    const Lines& asked = rig.other.asked(peer);
    CHECK(std::count(asked.begin(), asked.end(), "SELECT 3") == 1);
}

TEST_CASE("failover: a blocking command is closed if some of its reply has come") {
    for (size_t size = 1; size < kPopped.size(); ++size) {
        CAPTURE(size);
        BlockedRig rig;
        FakeClient& client = rig.make_blocked();
        rig.valkey.send(rig.peer, kPopped.substr(0, size));
        rig.run_until_read(rig.peer);
        rig.fail_over();
        CHECK(rig.run_until_ended(client));
        CHECK(client.output().empty());
        CHECK(rig.other.times_asked("BLPOP k 0") == 0);
        CHECK(rig.metrics.clients_closed_down_total == 1);
    }
}

TEST_CASE("failover: a blocking command with something behind it is closed, as is WAIT") {
    for (const Lines& lines : {Lines{"BLPOP k 0", "BLPOP j 0"}, Lines{"BLPOP k 0", "EVAL x 0"},
                               Lines{"WAIT 1 0"}, Lines{"BLPOP k x"}}) {
        CAPTURE(lines.back());
        FailoverRig rig;
        for (const std::string& line : lines)
            rig.silence(line);
        FakeClient& client = rig.make_ready();
        client.ask(lines);
        REQUIRE(rig.run_until_asked(lines.back(), 1));
        rig.run_until_read(rig.valkey.peer_of(lines.back()));
        rig.fail_over();
        CHECK(rig.run_until_ended(client));
        CHECK(client.output().empty());
        CHECK(rig.is_other_spared(lines));
        CHECK(rig.metrics.clients_moved_blocked_total == 0);
    }
}

TEST_CASE("failover: the server's word that it is a replica does not reach a blocked client") {
    for (size_t size = 1; size <= kUnblocked.size(); size += 7) {
        CAPTURE(size);
        BlockedRig rig;
        FakeClient& client = rig.make_blocked();
        rig.valkey.answers.erase("BLPOP k 0");
        rig.valkey.send(rig.peer, kUnblocked.substr(0, size));
        rig.run_until_read(rig.peer);
        rig.valkey.send(rig.peer, kUnblocked.substr(size));
        CHECK(rig.run_until_output(client, "+BLPOP k 0\r\n"));
        CHECK(rig.valkey.peer_of("BLPOP k 0") != rig.peer);
        CHECK(rig.run_until_closed(rig.peer));
        CHECK(rig.metrics.clients_moved_blocked_total == 1);
    }
}

TEST_CASE("failover: a beginning of that word is enough to wait on") {
    BlockedRig rig;
    FakeClient& client = rig.make_blocked();
    rig.valkey.send(rig.peer, kUnblocked.substr(0, 30));
    rig.run_until_read(rig.peer);
    rig.fail_over();
    CHECK(rig.run_until_output(client, "+BLPOP k 0\r\n"));
    CHECK(rig.other.times_asked("BLPOP k 0") == 1);
}

TEST_CASE("failover: other errors are the blocked client's, however they are cut") {
    for (const std::string& error :
         {std::string("-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"), kReadonly,
          std::string("-UNBLOCKED the stream key no longer exists\r\n"),
          std::string("-WRONGTYPE x\r\n"), std::string("-UNB\r\n"), std::string("-\r\n"),
          "-UNBLOCKED force unblock " + std::string(1000, 'x') + "\r\n"}) {
        for (size_t size = 1; size <= error.size() && size < 60; size += 5) {
            CAPTURE(error);
            CAPTURE(size);
            BlockedRig rig;
            FakeClient& client = rig.make_blocked();
            rig.valkey.send(rig.peer, error.substr(0, size));
            rig.run_until_read(rig.peer);
            rig.valkey.send(rig.peer, error.substr(size));
            CHECK(rig.run_until_output(client, error));
            CHECK(rig.valkey.times_asked("BLPOP k 0") == 1);
            const std::string words = error.substr(1, error.size() - 3);
            CHECK(rig.metrics.commands.of("blpop").errors(error_code_of(words)) == 1);
        }
    }
}

TEST_CASE("failover: the command is tried again while a replica answers, and finds the primary") {
    for (const std::string& refusal : {kReadonly, kUnblocked, std::string("-REDIRECT h:1\r\n")}) {
        CAPTURE(refusal);
        BlockedRig rig;
        FakeClient& client = rig.make_blocked();
        rig.valkey.answers["BLPOP k 0"] = refusal;
        rig.other.answers["BLPOP k 0"] = "";
        rig.valkey.send(rig.peer, kUnblocked);
        REQUIRE(rig.run_until_asked("BLPOP k 0", 3));
        rig.fail_over();
        REQUIRE(rig.run_until_asked_other("BLPOP k 0", 1));
        rig.other.send(rig.other.peer_of("BLPOP k 0"), kPopped);
        CHECK(rig.run_until_output(client, kPopped));
        CHECK(rig.metrics.clients_moved_blocked_total == 1);
        CHECK(rig.node->leases().leased().size() == 0);
    }
}

TEST_CASE("failover: the command goes to where the name leads by now, not over what is kept") {
    BlockedRig rig;
    FakeClient& client = rig.make_blocked();
    FakeClient& next = rig.add_client();
    next.ask({"EVAL x 0"});
    REQUIRE(rig.run_until_output(next, "+EVAL x 0\r\n"));
    rig.valkey.stop_listening();
    FakeValkey there(rig.loop, rig.directory / "valkey");
    rig.valkey.send(rig.peer, kUnblocked);
    CHECK(rig.run_until_output(client, "+BLPOP k 0\r\n"));
    CHECK(there.times_asked("BLPOP k 0") == 1);
    CHECK(rig.valkey.times_asked("BLPOP k 0") == 1);
    rig.clients.clear();
    rig.node.reset();
}

TEST_CASE("failover: where there is no primary the client gets the server's word in the end") {
    BlockedRig rig;
    FakeClient& client = rig.make_blocked();
    rig.valkey.answers["BLPOP k 0"] = kReadonly;
    rig.valkey.send(rig.peer, kUnblocked);
    CHECK(rig.run_until_output(client, kReadonly));
    CHECK(rig.valkey.times_asked("BLPOP k 0") == 8);
    client.ask({"GET a"});
    CHECK(rig.run_until_output(client, kReadonly + "+GET a\r\n"));
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("failover: each blocking command is tried as often as the first") {
    BlockedRig rig;
    FakeClient& client = rig.make_blocked();
    rig.valkey.answers["BLPOP k 0"] = kReadonly;
    rig.valkey.send(rig.peer, kUnblocked);
    REQUIRE(rig.run_until_output(client, kReadonly));
    // Not at once: READONLY is an answer like any other to who was not told of a replica before.
    client.ask({"BLPOP k 0"});
    CHECK(rig.run_until_output(client, kReadonly + kReadonly));
    CHECK(rig.valkey.times_asked("BLPOP k 0") == 9);
}

TEST_CASE("failover: a blocked client that leaves meanwhile is gone") {
    BlockedRig rig;
    FakeClient& client = rig.make_blocked();
    rig.valkey.answers["BLPOP k 0"] = kReadonly;
    rig.valkey.send(rig.peer, kUnblocked);
    REQUIRE(rig.run_until_asked("BLPOP k 0", 2));
    CHECK(client.socket.is_reading);
    client.session.on_end();
    CHECK(rig.is_ended(client));
    rig.fail_over();
    rig.settle();
    CHECK(rig.other.times_asked("BLPOP k 0") == 0);
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("failover: what a blocked client has sent meanwhile is run behind") {
    BlockedRig rig;
    FakeClient& client = rig.make_blocked();
    rig.valkey.answers["BLPOP k 0"] = kReadonly;
    rig.valkey.send(rig.peer, kUnblocked);
    REQUIRE(rig.run_until_asked("BLPOP k 0", 2));
    client.ask({"SET a 1"});
    rig.fail_over();
    CHECK(rig.run_until_output(client, "+BLPOP k 0\r\n+SET a 1\r\n"));
    CHECK(rig.other.times_asked("SET a 1") == 1);
    CHECK(rig.valkey.times_asked("SET a 1") == 0);
}

TEST_CASE("failover: blocked clients queue for leases as others do, or are closed in the end") {
    for (const bool is_freed : {true, false}) {
        CAPTURE(is_freed);
        BlockedRig rig;
        rig.options.dedicated_max = 1;
        if (!is_freed) rig.options.queue_timeout_ms = 50;
        rig.other.answers["EVAL x 0"] = "";
        FakeClient& client = rig.make_blocked();
        FakeClient& next = rig.add_client();
        next.ask({"EVAL x 0"});
        rig.settle();
        rig.fail_over();
        REQUIRE(rig.run_until_asked_other("EVAL x 0", 1));
        CHECK(rig.other.times_asked("BLPOP k 0") == 0);
        if (is_freed) {
            rig.other.send(rig.other.peer_of("EVAL x 0"), ":1\r\n");
            CHECK(rig.run_until_output(client, "+BLPOP k 0\r\n"));
        } else {
            CHECK(rig.run_until_ended(client));
            CHECK(client.output().empty());
        }
    }
}

TEST_CASE("failover: with the new primary gone before it is asked, a blocked client is closed") {
    BlockedRig rig;
    rig.options.queue_timeout_ms = 50;
    FakeClient& client = rig.make_blocked();
    rig.fail_over();
    rig.other.stop_listening();
    rig.other.close_all();
    CHECK(rig.run_until_ended(client));
    CHECK(client.output().empty());
    CHECK(rig.metrics.clients_closed_down_total == 1);
}

TEST_CASE("failover: a blocked client moves again when the primary changes again") {
    BlockedRig rig;
    FakeValkey third(rig.loop, rig.directory / "third");
    third.answers["HELLO 2"] = FailoverRig::kMaster;
    rig.other.answers["BLPOP k 0"] = "";
    FakeClient& client = rig.make_blocked();
    rig.fail_over();
    REQUIRE(rig.run_until_asked_other("BLPOP k 0", 1));
    rig.run_until_read(rig.other.peer_of("BLPOP k 0"));
    rig.fail_over_to("third");
    CHECK(rig.run_until_output(client, "+BLPOP k 0\r\n"));
    CHECK(third.times_asked("BLPOP k 0") == 1);
    CHECK(rig.metrics.clients_moved_blocked_total == 1);
    rig.clients.clear();
    rig.node.reset();
}

}  // namespace
}  // namespace nearkey::session_failover_test
