// Tunnels: bytes pass in both directions, from the command that asks for one until its end.
#include "nearkey/session/session.h"

#include "tunnel_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_tunnel_test {
namespace {

using Lines = std::vector<std::string>;

const std::string kMark = "SPUBLISH nearkey:wait ";

TEST_CASE("tunnel: a command may have several replies, and others come unasked") {
    SessionRig rig;
    rig.valkey.answers["SUBSCRIBE a b"] = "+one\r\n+two\r\n";
    FakeClient& client = rig.make_ready();
    client.ask({"GET x", "SUBSCRIBE a b", "PING"});
    const std::string expected = "+GET x\r\n+one\r\n+two\r\n+PONG\r\n";
    REQUIRE(rig.run_until_output(client, expected));
    const size_t peer = rig.valkey.peer_of("SUBSCRIBE a b");
    // The PING before it, which proves the connection, looks like a heartbeat.
    CHECK(rig.valkey.asked_when_ready(peer) == Lines{"CLIENT SETNAME ", "SUBSCRIBE a b"});
    rig.valkey.send(peer, kMessage);
    CHECK(rig.run_until_output(client, expected + kMessage));
    client.ask({"SET y 1", "WHAT now", "HELLO 3"});
    const std::string hello = "%2\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:3\r\n";
    CHECK(rig.run_until_output(client, expected + kMessage + "+SET y 1\r\n+WHAT now\r\n" + hello));
    CHECK(rig.valkey.peer_of("SET y 1") == peer);
    CHECK(rig.valkey.peer_of("WHAT now") == peer);
    CHECK(rig.node->leases().leased().size() == 1);
}

TEST_CASE("tunnel: a command that is not canonical is encoded anew") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    client.send("SET b 'in line'\r\n");
    CHECK(rig.run_until_output(client, "+SET b in line\r\n"));
    CHECK(rig.valkey.asked(rig.peer).back() == "SET b in line");
}

TEST_CASE("tunnel: a client that sends no more half-closes it, and still gets what comes") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.stays_after_end = true;
    rig.silence("GET b");
    client.ask({"GET b"});
    client.session.on_end();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.has_ended(rig.peer); }));
    CHECK(rig.valkey.times_asked("GET b") == 1);
    CHECK_FALSE(rig.is_ended(client));
    rig.valkey.send(rig.peer, kMessage);
    CHECK(rig.run_until_output(client, kMessage));
    rig.valkey.close(rig.peer);
    CHECK(rig.run_until_ended(client));
    CHECK(client.output() == kMessage);
    CHECK(rig.metrics.upstream_tunnels == 0);
}

TEST_CASE("tunnel: its end ends the client, when what it owes has left") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    client.socket.room = 3;
    rig.valkey.send(rig.peer, kMessage);
    rig.run_until_read(rig.peer);
    rig.valkey.close(rig.peer);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_tunnels == 0; }));
    rig.settle();
    CHECK_FALSE(rig.is_ended(client));
    client.ask({"GET b"});
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.is_ended(client));
    CHECK(client.output() == kMessage);
    CHECK(rig.valkey.times_asked("GET b") == 0);
    CHECK(rig.metrics.client_memory_bytes == 0);
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("tunnel: a client that ends or is lost closes it") {
    for (const std::string end : {"abort", "drain", "lost"}) {
        CAPTURE(end);
        TunnelRig rig;
        FakeClient& client = rig.make_tunnel();
        if (end == "abort") client.session.abort();
        if (end == "drain") client.session.drain();
        if (end == "lost") {
            client.socket.is_lost = true;
            client.session.on_stream_lost();
        }
        CHECK(rig.run_until_ended(client));
        CHECK(rig.run_until_closed(rig.peer));
        CHECK(rig.metrics.upstream_tunnels == 0);
        CHECK(rig.node->leases().leased().size() == 0);
    }
}

TEST_CASE("tunnel: while the client takes nothing the server is not read") {
    TunnelRig rig;
    rig.terms.limits.output_per_client_high_water = 100'000;
    FakeClient& client = rig.make_tunnel();
    client.socket.room = 0;
    const std::string big = "$4000000\r\n" + std::string(4'000'000, 'v') + "\r\n";
    rig.valkey.send(rig.peer, big);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.clients_paused_output_total > 0; }));
    size_t unread = 0;
    for (int i = 0; i < 3; ++i) {
        rig.settle();
        unread = rig.valkey.unread(rig.peer);
    }
    CHECK(unread > 3'000'000);
    CHECK(client.session.memory_bytes() < 1'000'000);
    // A little room does not help yet.
    client.socket.room = 1000;
    client.session.on_writable();
    rig.settle();
    CHECK(rig.valkey.unread(rig.peer) == unread);
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, big));
    client.ask({"GET b"});
    CHECK(rig.run_until_output(client, big + "+GET b\r\n"));
    CHECK(client.socket.is_reading);
}

TEST_CASE("tunnel: a protocol error is the server's to tell") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.stays_after_end = true;
    client.send(encoded("GET b") + "*1\r\n:3\r\n" + encoded("GET c"));
    REQUIRE(run_until(rig.loop, [&] { return !rig.valkey.unparsed(rig.peer).empty(); }));
    CHECK(rig.valkey.unparsed(rig.peer) == "*1\r\n:\r\n");
    CHECK(rig.metrics.protocol_errors_total == 1);
    rig.valkey.send(rig.peer, "-ERR Protocol error: whatever\r\n");
    rig.run_until_read(rig.peer);
    rig.valkey.close(rig.peer);
    CHECK(rig.run_until_ended(client));
    CHECK(client.output() == "+GET b\r\n-ERR Protocol error: whatever\r\n");
}

TEST_CASE("tunnel: behind SYNC what comes is not read") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.answers["SYNC"] = "\n\n$EOF:whatever\r\n+RESET\r\n";
    rig.valkey.answers["RESET"] = "+RESET\r\n";
    client.ask({"SYNC", "RESET", "GET b"});
    CHECK(rig.run_until_output(client, "\n\n$EOF:whatever\r\n+RESET\r\n+RESET\r\n+GET b\r\n"));
    CHECK(rig.valkey.peer_of("GET b") == rig.peer);
}

TEST_CASE("tunnel: malformed replies are passed on too") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.send(rig.peer, "what is this\r\n+and that\r\n");
    CHECK(rig.run_until_output(client, "what is this\r\n+and that\r\n"));
    CHECK(rig.valkey.is_open(rig.peer));
}

TEST_CASE("tunnel: HELLO with AUTH and AUTH enter one, and the server decides") {
    for (const std::string line : {"HELLO 3 AUTH me secret SETNAME x", "AUTH secret", "AUTH a b"}) {
        CAPTURE(line);
        SessionRig rig;
        rig.valkey.answers[line] = "-WRONGPASS no\r\n";
        FakeClient& client = rig.make_ready();
        client.ask({"GET a", line, "GET b"});
        CHECK(rig.run_until_output(client, "+GET a\r\n-WRONGPASS no\r\n+GET b\r\n"));
        CHECK(rig.valkey.peer_of("GET b") == rig.valkey.peer_of(line));
        CHECK(rig.valkey.peer_of("GET b") != 0);
        CHECK(rig.metrics.upstream_tunnels == 1);
        CHECK(rig.valkey.asked(rig.valkey.peer_of(line)).front() == "HELLO 2");
    }
}

// A client that has begun a transaction, written in it, and then asks for what needs a tunnel.
void enter_from(const std::string& begin, const std::string& line, bool marks) {
    CAPTURE(begin);
    CAPTURE(line);
    SessionRig rig;
    rig.valkey.answers[line] = "+QUEUED\r\n";
    rig.silence("SET a 1");
    FakeClient& client = rig.make_ready();
    client.ask({begin, "SET a 1", line, "EXEC", "GET b"});
    REQUIRE(rig.run_until_asked("SET a 1", 1));
    rig.settle();
    CHECK(rig.valkey.times_asked("EXEC") == 0);
    const size_t peer = rig.valkey.peer_of("SET a 1");
    rig.valkey.send(peer, "+a\r\n");
    CHECK(rig.run_until_output(client, "+" + begin + "\r\n+a\r\n+QUEUED\r\n+EXEC\r\n+GET b\r\n"));
    Lines expected{"CLIENT SETNAME ", begin, "SET a 1", line, "EXEC", "GET b"};
    if (marks) expected.insert(expected.begin() + 3, kMark);
    CHECK(rig.valkey.asked_when_ready(peer) == expected);
    CHECK(rig.metrics.upstream_tunnels == 1);
    rig.valkey.close(peer);
    CHECK(rig.run_until_ended(client));
}

TEST_CASE("tunnel: what nearkey else keeps itself enters one behind WATCH, and in MULTI") {
    for (const char* line : {"SELECT 3", "HELLO 3", "CLIENT SETNAME x", "SUBSCRIBE c"}) {
        enter_from("WATCH k", line, true);
        enter_from("MULTI", line, false);
    }
}

// A client in MULTI over a lease whose server was silent for long: commands are held back.
struct SuspectRig : SessionRig {
    explicit SuspectRig(const std::string& line, uint64_t timeout_ms = 10'000) {
        options.suspect_after_ms = 60;
        options.heartbeat_interval_ms = 10;
        options.unready_after_ms = 60'000;
        valkey.answers[line] = "+QUEUED\r\n";
        client = &make_ready();
        client->ask({"MULTI"});
        REQUIRE(run_until_output(*client, "+MULTI\r\n"));
        peer = valkey.peer_of("MULTI");
        valkey.freeze();
        REQUIRE(run_until(loop, [this] { return metrics.upstream_suspects_total == 1; }));
        options.request_timeout_ms = timeout_ms;
        client->ask({line});
        settle();
    }
    FakeClient* client;
    size_t peer = 0;
};

TEST_CASE("tunnel: in MULTI nothing of our own is asked, and one that is held back waits") {
    for (const std::string line : {"SELECT 3", "HELLO 3", "CLIENT SETNAME x", "SUBSCRIBE c"}) {
        CAPTURE(line);
        SuspectRig rig(line);
        const Connection& lease = *rig.node->leases().leased().front();
        const uint64_t sent_before = lease.pipeline().bytes_sent();
        rig.valkey.thaw();
        CHECK(rig.run_until_output(*rig.client, "+MULTI\r\n+QUEUED\r\n"));
        rig.client->ask({"EXEC"});
        CHECK(rig.run_until_output(*rig.client, "+MULTI\r\n+QUEUED\r\n+EXEC\r\n"));
        CHECK(rig.valkey.asked_when_ready(rig.peer) ==
              Lines{"CLIENT SETNAME ", "MULTI", line, "EXEC"});
        CHECK(lease.pipeline().bytes_sent() - sent_before ==
              encoded(line).size() + encoded("EXEC").size());
        CHECK(rig.metrics.upstream_tunnels == 1);
    }
}

TEST_CASE("tunnel: one that is held back in MULTI until its connection is lost ends the client") {
    SuspectRig rig("SELECT 3");
    rig.valkey.close(rig.peer);
    rig.valkey.thaw();
    CHECK(rig.run_until_ended(*rig.client));
    CHECK(rig.client->output() == "+MULTI\r\n");
    CHECK(rig.valkey.times_asked("SELECT 3") == 0);
    CHECK(rig.metrics.clients_closed_state_total == 1);
}

TEST_CASE("tunnel: one that is held back in MULTI for too long ends the client") {
    SuspectRig rig("SELECT 3", 20);
    rig.client->ask({"EXEC"});
    CHECK(rig.run_until_ended(*rig.client));
    CHECK(rig.client->output() ==
          "+MULTI\r\n-UPSTREAMDOWN Valkey did not answer in time; not sent\r\n");
    rig.valkey.thaw();
    rig.settle();
    CHECK(rig.valkey.times_asked("EXEC") == 0);
}

TEST_CASE("tunnel: WAIT in it counts what was written before, over whatever connection") {
    for (const bool has_written : {false, true}) {
        CAPTURE(has_written);
        SessionRig rig;
        FakeClient& client = rig.make_ready();
        client.ask({has_written ? "SET a 1" : "GET a", "SUBSCRIBE c", "WAIT 1 0"});
        REQUIRE(rig.run_until_asked("WAIT 1 0", 1));
        Lines expected{"CLIENT SETNAME ", "SUBSCRIBE c", "WAIT 1 0"};
        if (has_written) expected.insert(expected.begin() + 1, kMark);
        CHECK(rig.valkey.asked_when_ready(rig.valkey.peer_of("WAIT 1 0")) == expected);
        // The mark has a reply, which is not the client's.
        CHECK(rig.run_until_output(client, (has_written ? "+SET a 1" : "+GET a") +
                                               std::string("\r\n+SUBSCRIBE c\r\n+WAIT 1 0\r\n")));
    }
}

TEST_CASE("tunnel: while it can't be reached its command is an error, and the client goes on") {
    SessionRig rig;
    rig.options.queue_timeout_ms = 40;
    FakeClient& client = rig.make_ready();
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.node->health().is_ready; }));
    client.ask({"SUBSCRIBE a"});
    const std::string down = "-UPSTREAMDOWN Valkey can't be reached; not sent\r\n";
    CHECK(rig.run_until_output(client, down));
    CHECK(rig.metrics.upstream_tunnels == 0);
    CHECK(rig.node->leases().leased().size() == 0);
    rig.valkey.listen();
    rig.options.queue_timeout_ms = 10'000;
    client.ask({"GET b"});
    CHECK(rig.run_until_output(client, down + "+GET b\r\n"));
    CHECK(rig.valkey.times_asked("SUBSCRIBE a") == 0);
}

TEST_CASE("tunnel: a client that leaves behind a protocol error, the server hears so at once") {
    TunnelRig rig;
    FakeClient& client = rig.make_tunnel();
    rig.valkey.stays_after_end = true;
    client.send("*1\r\n:3\r\n");
    client.session.on_end();
    CHECK(run_until(
        rig.loop, [&] { return rig.valkey.has_ended(rig.peer); }, std::chrono::seconds(1)));
}

TEST_CASE("tunnel: a connection that is lost after it was proven, before it is used") {
    SessionRig rig;
    rig.silence("CLIENT SETNAME ");
    FakeClient& client = rig.make_ready();
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_asked("CLIENT SETNAME ", 1));
    client.session.pause_for_memory();
    const size_t peer = rig.valkey.peer_of("CLIENT SETNAME ");
    rig.valkey.send(peer, "+PONG\r\n");
    rig.run_until_read(peer);
    rig.valkey.stop_listening();
    rig.valkey.close(peer);
    rig.settle();
    client.session.resume_after_memory();
    rig.settle();
    CHECK(client.output().starts_with("-UPSTREAM"));
}

}  // namespace
}  // namespace nearkey::session_tunnel_test
