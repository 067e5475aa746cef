// Commands that the listener's rules refuse: answered here, or by a stand-in where the server keeps
// the order.
#include "nearkey/session/session.h"

#include "tunnel_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_access_test {
namespace {

const std::string kUnknown =
    "-ERR unknown command 'nearkey:refused:set', with args beginning with: \r\n";

std::string refused(const std::string& name) {
    return "-NOPERM User default has no permissions to run the '" + name + "' command\r\n";
}

// `Rig` with a client whose listener has these rules from now on.
template <class Rig>
void refuse(Rig& rig, std::string_view text) {
    std::vector<AccessRule> rules;
    REQUIRE(parse_access_rules(text, rules) == "");
    rig.terms.access = CommandAccess(std::move(rules), rig.node->catalog().commands());
}

// Through a tunnel, whose server says nothing of the stand-in yet.
void ask_for_refused(TunnelRig& rig, FakeClient& client) {
    refuse(rig, "+@all -set");
    rig.valkey.answers["nearkey:refused:set"] = "";
    client.ask({"SET a 1"});
    REQUIRE(rig.run_until_asked("nearkey:refused:set", 1));
}

TEST_CASE("access: a refused command is answered here, at its turn, and is not sent") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    refuse(rig, "+@all -set");
    client.ask({"GET a", "SET b 1", "GET c", "set d 1"});
    CHECK(rig.run_until_output(client,
                               "+GET a\r\n" + refused("set") + "+GET c\r\n" + refused("set")));
    CHECK(rig.valkey.times_asked("SET b 1") == 0);
    CHECK(rig.metrics.commands_refused_total == 2);
}

TEST_CASE("access: a command that waits for its connection keeps the rules under which it began") {
    TunnelRig rig;
    rig.valkey.answers["SUBSCRIBE a"] = kSubscribed;
    FakeClient& client = rig.make_ready();
    rig.valkey.freeze();
    client.ask({"SUBSCRIBE a"});
    rig.settle();
    refuse(rig, "+@all -subscribe");
    rig.valkey.thaw();
    CHECK(rig.run_until_output(client, kSubscribed));
    client.ask({"PING", "SUBSCRIBE b"});
    CHECK(rig.run_until_asked("nearkey:refused:subscribe", 1));
}

TEST_CASE("access: a command that waits for its turn has the rules that hold then") {
    TunnelRig rig;
    rig.silence("EVAL x 0");
    FakeClient& client = rig.make_ready();
    client.ask({"EVAL x 0", "SUBSCRIBE a"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    refuse(rig, "+@all -subscribe");
    rig.valkey.send(rig.valkey.peer_of("EVAL x 0"), ":1\r\n");
    CHECK(rig.run_until_output(client, ":1\r\n" + refused("subscribe")));
    client.ask({"GET b"});
    CHECK(rig.run_until_output(client, ":1\r\n" + refused("subscribe") + "+GET b\r\n"));
}

TEST_CASE("access: Redis 7.0 does not name the user, and so is its refusal worded") {
    for (const std::string version : {"7.0.15", "7.2.4"}) {
        CAPTURE(version);
        SessionRig rig;
        rig.valkey.answers["HELLO 2"] =
            "*4\r\n+server\r\n+redis\r\n+version\r\n+" + version + "\r\n";
        FakeClient& client = rig.make_ready();
        refuse(rig, "+@all -set");
        client.ask({"SET b 1"});
        const std::string unnamed =
            "-NOPERM this user has no permissions to run the 'set' command\r\n";
        CHECK(rig.run_until_output(client, version == "7.0.15" ? unnamed : refused("set")));
    }
}

TEST_CASE("access: a call that the server would not run is the server's to answer") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    refuse(rig, "+@all -set");
    client.ask({"SET b"});
    CHECK(rig.run_until_output(client, "+SET b\r\n"));
    CHECK(rig.metrics.commands_refused_total == 0);
}

TEST_CASE("access: rules that change hold from the next command on") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    refuse(rig, "+@all -set");
    client.ask({"SET b 1"});
    refuse(rig, "+@all");
    client.ask({"SET b 1"});
    CHECK(rig.run_until_output(client, refused("set") + "+SET b 1\r\n"));
}

TEST_CASE("access: what a client may call a command is a word in the error") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    refuse(rig, "+get");
    client.send("*1\r\n$7\r\nA'\r\nB`C\r\n");
    CHECK(rig.run_until_output(client, refused("A???B?C")));
}

TEST_CASE("access: in a transaction the server is told, and its error is exchanged") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    rig.valkey.answers["MULTI"] = "+OK\r\n";
    rig.valkey.answers["nearkey:refused:set"] = kUnknown;
    rig.valkey.answers["EXEC"] = "-EXECABORT Transaction discarded\r\n";
    refuse(rig, "+@all -set");
    const std::string expected =
        "+OK\r\n" + refused("set") + "+GET a\r\n-EXECABORT Transaction discarded\r\n";
    client.ask({"MULTI", "SET b 1", "GET a", "EXEC"});  // It has arrived whole.
    CHECK(rig.run_until_output(client, expected));
    for (const char* line : {"MULTI", "SET b 1", "GET a", "EXEC"})
        client.ask({line});
    CHECK(rig.run_until_output(client, expected + expected));
    CHECK(rig.metrics.transactions_whole_total == 0);
    CHECK(rig.metrics.commands_refused_total == 2);
    CHECK(rig.valkey.times_asked("SET b 1") == 0);
}

TEST_CASE("access: a refused EXEC ends its transaction, as with Valkey") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    for (const char* line : {"MULTI", "DISCARD"})
        rig.valkey.answers[line] = "+OK\r\n";
    refuse(rig, "+@all -exec");
    client.ask({"MULTI", "SET a 1", "EXEC", "GET b"});
    CHECK(rig.run_until_output(client,
                               "+OK\r\n+SET a 1\r\n-EXECABORT Transaction discarded because of: " +
                                   refused("exec").substr(1) + "+GET b\r\n"));
    CHECK(rig.valkey.times_asked("EXEC") == 0);
    client.socket.written.clear();
    client.ask({"EXEC"});
    CHECK(rig.run_until_output(
        client, "-EXECABORT Transaction discarded because of: " + refused("exec").substr(1)));
}

TEST_CASE("access: in a tunnel the server's error to the stand-in is exchanged, cut anywhere") {
    for (size_t cut = 1; cut < kUnknown.size(); ++cut) {
        TunnelRig rig;
        FakeClient& client = rig.make_tunnel();
        ask_for_refused(rig, client);
        rig.valkey.send(rig.peer, kMessage + kUnknown.substr(0, cut));
        rig.run_until_read(rig.peer);
        rig.valkey.send(rig.peer, kUnknown.substr(cut) + "-ERR other\r\n" + kMessage);
        CHECK(
            rig.run_until_output(client, kMessage + refused("set") + "-ERR other\r\n" + kMessage));
        CHECK(rig.metrics.commands_refused_total == 1);
    }
}

TEST_CASE("access: a long error is no reply to a stand-in, and is passed on") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    ask_for_refused(rig, client);
    const std::string error = "-ERR " + std::string(1000, 'x') + "\r\n";
    rig.valkey.send(rig.peer, error + kUnknown);
    CHECK(rig.run_until_output(client, error + refused("set")));
}

TEST_CASE("access: EXPLAIN says what the rules refuse") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    refuse(rig, "+@all -set");
    client.ask({"NEARKEY EXPLAIN SET a 1"});
    CHECK(run_until(rig.loop,
                    [&] { return client.output().find("refused by rule") != std::string::npos; }));
}

TEST_CASE("access: a long error is not kept until it ends") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    ask_for_refused(rig, client);
    const std::string begin = "-ERR " + std::string(300, 'x');
    rig.valkey.send(rig.peer, begin);
    CHECK(rig.run_until_output(client, begin));
    rig.valkey.send(rig.peer, "y\r\n" + kUnknown);
    CHECK(rig.run_until_output(client, begin + "y\r\n" + refused("set")));
}

}  // namespace
}  // namespace nearkey::session_access_test
