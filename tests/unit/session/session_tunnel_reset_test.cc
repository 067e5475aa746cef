// How a tunnel ends with RESET, and what looks like it but is not.
#include "nearkey/session/session.h"

#include "tunnel_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_tunnel_reset_test {
namespace {

using Lines = std::vector<std::string>;

const std::string kQuit = "QUIT";
const std::string kReset = "+RESET\r\n";
// What the server says to our own RESET and QUIT.
const std::string kGone = "+RESET\r\n+OK\r\n";

TEST_CASE("tunnel: RESET leads back to the shared connection, with what is pipelined behind it") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.answers["RESET"] = "+RESET\r\n";
    client.ask({"PING", "RESET", "GET b", "CLIENT GETNAME"});
    CHECK(rig.run_until_output(client, "+PONG\r\n+RESET\r\n+GET b\r\n$-1\r\n"));
    CHECK(rig.valkey.peer_of("GET b") == 0);
    CHECK(rig.run_until_closed(rig.peer));
    CHECK(rig.metrics.upstream_tunnels == 0);
    CHECK(rig.node->leases().leased().size() == 0);
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_asked("SUBSCRIBE a", 2));
    CHECK(rig.metrics.upstream_tunnels == 1);
}

TEST_CASE("tunnel: the reply to RESET is found when it is cut, and between other replies") {
    const std::string before = kMessage + "$8\r\n+RESET\r\n\r\n$-1\r\n";
    const std::string visible = before + kReset;
    const std::string replies = visible + kGone;
    for (size_t cut = 1; cut < replies.size(); ++cut) {
        CAPTURE(cut);
        TunnelRig rig;
        FakeClient& client = rig.make_tunnel();
        rig.silence("RESET");
        rig.silence(kQuit);
        client.ask({"RESET", "GET b"});
        REQUIRE(rig.run_until_asked(kQuit, 1));
        rig.valkey.send(rig.peer, replies.substr(0, cut));
        rig.run_until_read(rig.peer);
        CHECK(visible.starts_with(client.output()));
        CHECK(client.output().size() + kGone.size() >= cut);
        CHECK(rig.valkey.times_asked("GET b") == 0);
        rig.valkey.send(rig.peer, replies.substr(cut));
        rig.run_until_read(rig.peer);
        CHECK(rig.valkey.times_asked("GET b") == 0);
        rig.valkey.close(rig.peer);
        CHECK(rig.run_until_output(client, visible + "+GET b\r\n"));
        CHECK(rig.metrics.upstream_tunnels == 0);
    }
}

TEST_CASE("tunnel: what looks like RESET without being asked for, or is refused, is no end") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.answers["RESET x"] = "-ERR wrong number of arguments\r\n";
    rig.valkey.send(rig.peer, "+RESET\r\n");
    REQUIRE(rig.run_until_output(client, "+RESET\r\n"));
    client.ask({"RESET x", "GET b"});
    CHECK(rig.run_until_output(client, "+RESET\r\n-ERR wrong number of arguments\r\n+GET b\r\n"));
    CHECK(rig.valkey.peer_of("GET b") == rig.peer);
}

TEST_CASE("tunnel: what a client has said of itself before it is kept behind RESET, but the name") {
    SessionRig rig;
    rig.valkey.answers["RESET"] = "+RESET\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"CLIENT SETNAME me", "CLIENT SETINFO lib-name lib", "SUBSCRIBE a", "RESET"});
    client.ask({"EVAL x 0"});
    REQUIRE(rig.run_until_asked("EVAL x 0", 1));
    CHECK(rig.valkey.asked_when_ready(rig.valkey.peer_of("SUBSCRIBE a")) ==
          Lines{"CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME lib", "SUBSCRIBE a", "RESET", "RESET",
                kQuit});
    CHECK(rig.valkey.asked_when_ready(rig.valkey.peer_of("EVAL x 0")) ==
          Lines{"CLIENT SETNAME ", "CLIENT SETINFO LIB-NAME lib", "EVAL x 0"});
}

TEST_CASE("tunnel: a client that is lost while RESET is not answered yet ends") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.silence("RESET");
    client.ask({"RESET"});
    REQUIRE(rig.run_until_asked("RESET", 1));
    client.socket.is_lost = true;
    client.session.on_stream_lost();
    CHECK(run_until(
        rig.loop, [&] { return rig.is_ended(client); }, std::chrono::seconds(1)));
}

TEST_CASE("tunnel: a status RESET that another command was answered with is no end") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    for (const std::string& line : {std::string("EVAL x 0"), std::string("RESET"), kQuit})
        rig.silence(line);
    client.ask({"EVAL x 0", "RESET", "GET b"});
    REQUIRE(rig.run_until_asked(kQuit, 1));
    rig.valkey.send(rig.peer, "+RESET\r\n");
    rig.run_until_read(rig.peer);
    CHECK(rig.valkey.times_asked("GET b") == 0);
    rig.valkey.send(rig.peer, "+RESET\r\n" + kGone);
    rig.valkey.close(rig.peer);
    CHECK(rig.run_until_output(client, "+RESET\r\n+RESET\r\n+GET b\r\n"));
}

TEST_CASE("tunnel: whatever stands before the reply to RESET is passed on, in whatever form") {
    const std::string any[] = {
        "",
        "+OK\r\n",
        kReset,
        kReset + kReset,
        kGone + kReset,
        "$13\r\n+RESET\r\n+OK\r\n\r\n",
        "-ERR raw\r\n$1000000\r\nline ends\n\r\n",
        "-ERR Protocol error",
        "\n\n$EOF:\r\n+",
        "*1000\r\n:1\r\n+RESET\r",
    };
    for (const std::string& before : any) {
        const std::string replies = before + kGone;  // its own reply may be silenced
        for (size_t cut = 1; cut < replies.size(); ++cut) {
            CAPTURE(before);
            CAPTURE(cut);
            TunnelRig rig;
            FakeClient& client = rig.make_tunnel();
            rig.silence("EVAL x 0");
            rig.silence("RESET");
            rig.silence(kQuit);
            client.ask({"EVAL x 0", "RESET", "GET b"});
            REQUIRE(rig.run_until_asked(kQuit, 1));
            rig.valkey.send(rig.peer, replies.substr(0, cut));
            rig.run_until_read(rig.peer);
            rig.valkey.send(rig.peer, replies.substr(cut));
            rig.valkey.close(rig.peer);
            CHECK(rig.run_until_output(client, before + "+GET b\r\n"));
            CHECK(rig.metrics.upstream_tunnels == 0);
            CHECK(rig.metrics.upstream_lost_socket_total == 0);
        }
    }
}

TEST_CASE("tunnel: a server that goes before it has answered RESET takes its client along") {
    const std::string replies = "+OK\r\n+RESET\r\n+RESET\r\n+OK\r";
    for (size_t cut = 0; cut <= replies.size(); ++cut) {
        CAPTURE(cut);
        TunnelRig rig;
        FakeClient& client = rig.make_tunnel();
        rig.silence("RESET");
        rig.silence(kQuit);
        client.ask({"RESET", "GET b"});
        REQUIRE(rig.run_until_asked(kQuit, 1));
        rig.valkey.send(rig.peer, replies.substr(0, cut));
        rig.valkey.close(rig.peer);
        CHECK(run_until(
            rig.loop, [&] { return rig.is_ended(client); }, std::chrono::seconds(1)));
        CHECK(client.output() == replies.substr(0, cut));
        CHECK(rig.valkey.times_asked("GET b") == 0);
    }
}

}  // namespace
}  // namespace nearkey::session_tunnel_reset_test
