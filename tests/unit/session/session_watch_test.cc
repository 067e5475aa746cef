// When a session's lease is clean again: after WATCH and MULTI, as the server's replies say.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_watch_test {
namespace {

struct Script {
    std::string name;
    std::vector<std::string> lines;
    std::map<std::string, std::string> answers;
    bool is_clean;  // afterwards
};

const std::string kNoMulti = "-ERR EXEC without MULTI\r\n";
const std::string kAborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";

// Each script begins with WATCH a, so that nothing of it is whole.
const std::vector<Script> kScripts{
    {"WATCH", {}, {}, false},
    {"UNWATCH", {"UNWATCH"}, {}, true},
    {"UNWATCH refused", {"UNWATCH"}, {{"UNWATCH", "-NOPERM no\r\n"}}, false},
    {"EXEC", {"MULTI", "EXEC"}, {{"EXEC", "*0\r\n"}}, true},
    {"EXEC that a watched key has stopped", {"MULTI", "EXEC"}, {{"EXEC", "*-1\r\n"}}, true},
    {"EXEC in the middle", {"MULTI", "SET a 1"}, {}, false},
    {"EXEC without MULTI", {"EXEC"}, {{"EXEC", kNoMulti}}, false},
    {"EXEC without MULTI, then UNWATCH", {"EXEC", "UNWATCH"}, {{"EXEC", kNoMulti}}, true},
    {"EXEC of a spoilt transaction", {"MULTI", "EXEC"}, {{"EXEC", kAborted}}, true},
    {"DISCARD", {"MULTI", "DISCARD"}, {}, true},
    {"DISCARD without MULTI", {"DISCARD"}, {{"DISCARD", "-ERR DISCARD without MULTI\r\n"}}, false},
    {"UNWATCH in MULTI", {"MULTI", "UNWATCH"}, {{"UNWATCH", "+QUEUED\r\n"}}, false},
    {"MULTI in MULTI", {"MULTI", "MULTI"}, {}, false},
    {"MULTI refused, then UNWATCH", {"MULTI", "UNWATCH"}, {{"MULTI", "-ERR no\r\n"}}, true},
    {"WATCH again after UNWATCH", {"UNWATCH", "WATCH b"}, {}, false},
    {"WATCH again, refused", {"UNWATCH", "WATCH b"}, {{"WATCH b", "-ERR no\r\n"}}, true},
    {"WATCH again after EXEC", {"MULTI", "EXEC", "WATCH b"}, {}, false},
};

TEST_CASE("watch: a lease is kept until a reply proves it clean, then it is used again") {
    for (const bool is_pipelined : {true, false}) {
        for (const Script& script : kScripts) {
            CAPTURE(script.name);
            CAPTURE(is_pipelined);
            SessionRig rig;
            rig.valkey.answers = script.answers;
            FakeClient& client = rig.make_ready();
            std::vector<std::string> lines{"WATCH a", "GET seen"};
            lines.insert(lines.end(), script.lines.begin(), script.lines.end());
            if (is_pipelined) client.ask(lines);
            for (size_t i = 0; !is_pipelined && i < lines.size(); ++i) {
                client.ask({lines[i]});
                REQUIRE(rig.run_until_asked(lines[i], 1));
                rig.run_until_read(rig.valkey.peer_of(lines[i]));
            }
            REQUIRE(rig.run_until_asked(lines.back(), 1));
            rig.run_until_read(rig.valkey.peer_of(lines.back()));
            CHECK(rig.node->leases().leased().size() == (script.is_clean ? 0 : 1));
            const size_t leased = rig.valkey.peer_of("GET seen");
            client.ask({"GET next"});
            REQUIRE(rig.run_until_asked("GET next", 1));
            CHECK((rig.valkey.peer_of("GET next") == leased) == !script.is_clean);
            client.session.abort();
            if (!script.is_clean) {
                CHECK(rig.run_until_closed(leased));
                continue;
            }
            FakeClient& other = rig.add_client();
            other.ask({"EVAL x 0"});
            CHECK(rig.run_until_output(other, "+EVAL x 0\r\n"));
            CHECK(rig.valkey.peer_of("EVAL x 0") == leased);
        }
    }
}

TEST_CASE("watch: what is refused leaves no lease behind") {
    SessionRig rig;
    rig.valkey.answers["WATCH a"] = "-NOPERM no\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "GET b"});
    CHECK(rig.run_until_output(client, "-NOPERM no\r\n+GET b\r\n"));
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("watch: EXEC, DISCARD and UNWATCH without a transaction need no lease") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"EXEC", "DISCARD", "UNWATCH"});
    CHECK(rig.run_until_output(client, "+EXEC\r\n+DISCARD\r\n+UNWATCH\r\n"));
    CHECK(rig.valkey.peer_count() == 1);
}

TEST_CASE("watch: a whole transaction behind it goes the same way") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "GET a", "MULTI", "SET a 2", "EXEC"});
    CHECK(rig.run_until_output(client, "+WATCH a\r\n+GET a\r\n+MULTI\r\n+SET a 2\r\n+EXEC\r\n"));
    const size_t leased = rig.valkey.peer_of("WATCH a");
    CHECK(leased != 0);
    CHECK(rig.valkey.peer_of("EXEC") == leased);
    CHECK(rig.metrics.transactions_whole_total == 0);
}

TEST_CASE("watch: the lease of a session that ends in it is closed") {
    for (const std::string end : {"abort", "drain", "end", "lost", "QUIT", "RESET"}) {
        CAPTURE(end);
        SessionRig rig;
        FakeClient& client = rig.make_ready();
        client.ask({"WATCH a"});
        REQUIRE(rig.run_until_output(client, "+WATCH a\r\n"));
        const size_t leased = rig.valkey.peer_of("WATCH a");
        if (end == "abort") client.session.abort();
        if (end == "drain") client.session.drain();
        if (end == "end") client.session.on_end();
        if (end == "lost") client.session.on_stream_lost();
        if (end == "QUIT" || end == "RESET") client.ask({end});
        CHECK(rig.run_until_closed(leased));
        CHECK(rig.node->leases().leased().size() == 0);
        if (end == "RESET") {
            client.ask({"GET b"});
            CHECK(rig.run_until_output(client, "+WATCH a\r\n+RESET\r\n+GET b\r\n"));
            CHECK(rig.valkey.peer_of("GET b") == 0);
        } else {
            CHECK(rig.run_until_ended(client));
        }
        CHECK(rig.metrics.clients_closed_state_total == 0);
    }
}

TEST_CASE("watch: NEARKEY is answered here, in its turn") {
    SessionRig rig;
    rig.silence("GET a");
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "GET a", local("x")});
    REQUIRE(rig.run_until_asked("GET a", 1));
    rig.settle();
    CHECK(client.output() == "+WATCH a\r\n");
    rig.valkey.send(rig.valkey.peer_of("GET a"), "+a\r\n");
    CHECK(rig.run_until_output(client, "+WATCH a\r\n+a\r\n" + local_answer("x")));
    CHECK(rig.node->leases().leased().size() == 1);
}

TEST_CASE("watch: a blocking command in it has no timeout, and none in MULTI waits without one") {
    SessionRig rig;
    rig.options.request_timeout_ms = 60;
    rig.silence("BLPOP k 0");
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "BLPOP k 0"});
    REQUIRE(rig.run_until_asked("BLPOP k 0", 1));
    const uint64_t start_ms = rig.loop.now_ms();
    run_until(rig.loop, [&] { return rig.loop.now_ms() > start_ms + 150; });
    CHECK(client.output() == "+WATCH a\r\n");
    // Who leaves while waiting takes nothing more.
    client.session.on_end();
    CHECK(rig.is_ended(client));
    CHECK(rig.run_until_closed(rig.valkey.peer_of("BLPOP k 0")));
    FakeClient& other = rig.add_client();
    other.ask({"MULTI", "BLPOP k 0"});
    REQUIRE(rig.run_until_ended(other));
    CHECK(other.output().starts_with("+MULTI\r\n-UPSTREAMTIMEOUT "));
}

TEST_CASE("watch: an unknown command in it costs the lease at the end") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "WHAT now", "UNWATCH"});
    REQUIRE(rig.run_until_output(client, "+WATCH a\r\n+WHAT now\r\n+UNWATCH\r\n"));
    CHECK(rig.run_until_closed(rig.valkey.peer_of("WHAT now")));
    CHECK(rig.valkey.peer_of("WATCH a") == rig.valkey.peer_of("WHAT now"));
}

TEST_CASE("watch: an unknown command that was refused costs nothing") {
    SessionRig rig;
    rig.valkey.answers["WHAT now"] = "-ERR unknown command\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "WHAT now", "UNWATCH"});
    REQUIRE(rig.run_until_asked("UNWATCH", 1));
    const size_t leased = rig.valkey.peer_of("UNWATCH");
    rig.run_until_read(leased);
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.valkey.is_open(leased));
}

TEST_CASE("watch: an error behind an unknown command that worked does not make the lease clean") {
    SessionRig rig;
    rig.valkey.answers["GET list"] = "-WRONGTYPE no\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a", "WHAT now", "GET list", "UNWATCH"});
    REQUIRE(rig.run_until_asked("UNWATCH", 1));
    const size_t leased = rig.valkey.peer_of("UNWATCH");
    rig.run_until_read(leased);
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.run_until_closed(leased));
}

TEST_CASE("watch: a blocking command pipelined behind EXEC waits as long as the server lets it") {
    SessionRig rig;
    rig.options.request_timeout_ms = 60;
    rig.silence("BLPOP k 0");
    FakeClient& client = rig.make_ready();
    client.ask({"WATCH a"});
    client.ask({"MULTI"});
    REQUIRE(rig.run_until_output(client, "+WATCH a\r\n+MULTI\r\n"));
    client.ask({"EXEC", "BLPOP k 0"});
    REQUIRE(rig.run_until_asked("BLPOP k 0", 1));
    const uint64_t start_ms = rig.loop.now_ms();
    run_until(rig.loop, [&] { return rig.loop.now_ms() > start_ms + 150; });
    CHECK(client.output() == "+WATCH a\r\n+MULTI\r\n+EXEC\r\n");
}

}  // namespace
}  // namespace nearkey::session_watch_test
