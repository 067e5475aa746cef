// Every reason for which a client's input is not run has an end that does not need the client, or
// the client is read meanwhile: either it gets on, or it ends with a reason (Session::Pause).
#include "nearkey/session/session.h"

#include "cached_rig.h"
#include "tunnel_rig.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace nearkey::session_progress_test {
namespace {

using Words = std::vector<std::string>;

// Echoes that get their own answers; what they are answered with is `expected`.
Words gets(size_t count, std::string& expected) {
    Words lines;
    for (size_t i = 0; i < count; ++i) {
        lines.push_back("GET " + std::to_string(i));
        expected += "+GET " + std::to_string(i) + "\r\n";
    }
    return lines;
}

TEST_CASE("session: a client that writes all before it reads is read, and answered in the end") {
    SessionRig rig;
    rig.terms.limits.output_per_client_high_water = 100;
    rig.terms.limits.in_flight_per_client_max = 8;
    FakeClient& client = rig.make_ready();
    client.socket.room = 0;
    std::string expected;
    for (const std::string& line : gets(2000, expected)) {
        REQUIRE(run_until(rig.loop, [&] { return client.socket.is_reading; }));
        client.ask({line});
    }
    rig.settle();
    CHECK(run_until(rig.loop, [&] { return client.socket.is_reading; }));
    CHECK(rig.metrics.clients_paused_output_total >= 1);
    // What is not run is kept, and counted.
    CHECK(rig.valkey.times_asked("GET 1000") == 0);
    CHECK(rig.metrics.client_memory_bytes > 20'000);
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, expected));
    CHECK(rig.metrics.client_memory_bytes < 10'000);
}

TEST_CASE("session: one that takes its replies a few bytes at a time gets all of them") {
    SessionRig rig;
    rig.terms.limits.output_per_client_high_water = 100;
    FakeClient& client = rig.make_ready();
    client.socket.room = 0;
    std::string expected;
    client.ask(gets(300, expected));
    CHECK(run_until(rig.loop, [&] {
        client.socket.room = 7;
        client.session.on_writable();
        return client.output().size() >= expected.size();
    }));
    CHECK(client.output() == expected);
}

TEST_CASE("session: what a client that sends no more has sent is run, whatever it waited for") {
    for (const bool is_output : {false, true}) {
        CAPTURE(is_output);
        SessionRig rig;
        if (is_output) rig.terms.limits.output_per_client_high_water = 100;
        rig.terms.limits.in_flight_per_client_max = 8;
        FakeClient& client = rig.make_ready();
        client.socket.room = is_output ? 0 : SIZE_MAX;
        std::string expected;
        client.ask(gets(300, expected));
        client.session.on_end();
        rig.settle();
        CHECK(run_until(rig.loop, [&] {
            if (is_output) client.socket.room = 70;
            if (is_output) client.session.on_writable();
            return rig.is_ended(client);
        }));
        CHECK(client.output() == expected);
    }
}

TEST_CASE("session: what a client writes without reading ends at input_per_client_max") {
    SessionRig rig;
    rig.terms.limits.output_per_client_high_water = 100;
    rig.terms.limits.input_per_client_max = 10'000;
    FakeClient& client = rig.make_ready();
    client.socket.room = 0;
    std::string expected;
    const Words lines = gets(400, expected);
    client.ask(lines);
    CHECK_FALSE(rig.is_ended(client));
    rig.settle();
    client.ask(lines);
    CHECK_FALSE(rig.is_ended(client));
    client.ask(lines);
    CHECK(rig.is_ended(client));
    CHECK(rig.metrics.clients_closed_input_total == 1);
    CHECK(rig.metrics.client_memory_bytes == 0);
}

TEST_CASE("session: while replies are on their way a client is read no faster than they come") {
    SessionRig rig;
    rig.terms.limits.in_flight_per_client_max = 2;
    for (const char* command : {"GET 0", "GET 1", "GET 2"})
        rig.silence(command);
    FakeClient& client = rig.make_ready();
    client.ask({"GET 0", "GET 1", "GET 2"});
    CHECK_FALSE(client.socket.is_reading);
    REQUIRE(rig.run_until_asked("GET 1", 1));
    rig.valkey.send(0, "+0\r\n+1\r\n");
    REQUIRE(rig.run_until_asked("GET 2", 1));
    CHECK(client.socket.is_reading);
}

TEST_CASE("session: a reply that never comes holds up what is behind it until it is late") {
    for (const std::string behind : {"GET b", "EVAL b 0"}) {
        CAPTURE(behind);
        SessionRig rig;
        rig.options.request_timeout_ms = 300;
        // The fake would answer a beat ahead of the command that it is silent about.
        rig.options.heartbeat_interval_ms = 3'600'000;
        rig.terms.limits.in_flight_per_client_max = 1;
        rig.silence("GET a");
        FakeClient& client = rig.make_ready();
        client.ask({"GET a", behind});
        CHECK_FALSE(client.socket.is_reading);
        REQUIRE(run_until(rig.loop, [&] { return client.socket.is_reading; }));
        rig.valkey.send(0, "+late\r\n");
        REQUIRE(run_until(rig.loop, [&] { return client.output().ends_with(behind + "\r\n"); }));
        CHECK_MESSAGE(client.output().starts_with("-UPSTREAMTIMEOUT "), client.output());
    }
}

static size_t count_held_up(SharedConnections& shared) {
    size_t count = 0;
    shared.for_each([&](Connection& each) { count += each.in_flight().is_held_up() ? 1 : 0; });
    return count;
}

TEST_CASE("session: while the server holds writes back, one more waits where the others do") {
    CachedRig rig;
    rig.valkey.keeps_order = true;
    FakeClient& client = rig.make_ready();
    SharedConnections& shared = rig.node->shared();
    // Each holds up one more connection; another is ready for the next.
    for (const std::string write : {"SET a 1", "SET b 1", "SET c 1"}) {
        const size_t before = count_held_up(shared);
        rig.silence(write);
        rig.add_client().ask({write});
        REQUIRE(run_until(rig.loop, [&] {
            return count_held_up(shared) > before &&
                   shared.find_ready(Protocol::Resp2, 0) != nullptr;
        }));
    }
    REQUIRE(run_until(rig.loop, [&] { return shared.may_hold_writes(); }));
    client.ask({"GET r"});
    REQUIRE(rig.run_until_end(client, "+GET r\r\n"));
    rig.silence("SET d 1");
    client.ask({"SET d 1"});
    REQUIRE(rig.run_until_asked("SET d 1", 1));
    CHECK(rig.valkey.peer_of("SET d 1") != rig.valkey.peer_of("GET r"));
}

TEST_CASE("session: where writes wait on all connections, one more answers who reads") {
    CachedRig rig;
    rig.options.request_timeout_ms = 60'000;
    rig.options.connections = 3;
    rig.make_ready();
    SharedConnections& shared = rig.node->shared();
    std::vector<FakeClient*> writers;
    for (const std::string write : {"SET a 1", "SET b 1", "SET c 1"}) {
        rig.silence(write);
        writers.push_back(&rig.add_client());
        writers.back()->ask({"GET " + write});
        REQUIRE(rig.run_until_end(*writers.back(), "+GET " + write + "\r\n"));
    }
    // More than there should be, as after a large reply.
    rig.options.connections = 1;
    writers[0]->ask({"SET a 1"});
    writers[1]->ask({"SET b 1"});
    writers[2]->ask({"SET c 1"});
    REQUIRE(run_until(rig.loop, [&] { return count_held_up(shared) == 3; }));
    // Nothing is asked of the server meanwhile that it could answer.
    REQUIRE(run_until(rig.loop, [&] { return shared.find_ready(Protocol::Resp2, 0) != nullptr; }));
    FakeClient& reader = rig.add_client();
    reader.ask({"GET r"});
    CHECK(rig.run_until_end(reader, "+GET r\r\n"));
}

TEST_CASE("session: a read passes a write that waits, to where two questions were answered since") {
    SessionRig rig;
    rig.valkey.keeps_order = true;
    rig.options.request_timeout_ms = 60'000;
    rig.options.connections = 1;
    FakeClient& reader = rig.make_ready();
    const size_t relief = rig.valkey.peer_count();
    rig.silence("PING");
    rig.silence("SET a 1");
    rig.add_client().ask({"SET a 1"});
    reader.ask({"GET r"});
    const auto run_until_pinged = [&](size_t times) {
        REQUIRE(run_until(rig.loop, [&] {
            if (rig.valkey.peer_count() <= relief) return false;
            const std::vector<std::string>& asked = rig.valkey.unanswered(relief);
            return std::count(asked.begin(), asked.end(), "PING") == static_cast<int64_t>(times);
        }));
        rig.settle();
    };
    // The handshake's, and the first question.
    for (const size_t times : {1, 2}) {
        run_until_pinged(times);
        rig.valkey.send(relief, "+PONG\r\n");
    }
    run_until_pinged(3);
    CHECK(rig.valkey.times_asked("GET r") == 1);
    SUBCASE("and nothing but reads is on its way there") {
        rig.valkey.send(relief, "+PONG\r\n");
        REQUIRE(rig.run_until_asked("GET r", 2));
        CHECK(rig.valkey.peer_of("GET r") == relief);
    }
    SUBCASE("but a write on its way there may wait as well") {
        rig.silence("SET b 1");
        rig.add_client().ask({"SET b 1"});
        REQUIRE(rig.run_until_asked("SET b 1", 1));
        REQUIRE(rig.valkey.peer_of("SET b 1") == relief);
        rig.valkey.send(relief, "+PONG\r\n");
        run_until_pinged(4);
        CHECK(rig.valkey.times_asked("GET r") == 1);
    }
}

TEST_CASE("session: behind a blocking command a client is read, whatever else it waits for") {
    SessionRig rig;
    rig.terms.limits.in_flight_per_client_max = 4;
    rig.silence("BLPOP l 0");
    FakeClient& client = rig.make_ready();
    std::string expected = "+popped\r\n";
    client.ask({"BLPOP l 0"});
    client.ask(gets(100, expected));
    REQUIRE(rig.run_until_asked("BLPOP l 0", 1));
    rig.settle();
    CHECK(run_until(rig.loop, [&] { return client.socket.is_reading; }));
    rig.valkey.send(rig.valkey.peer_of("BLPOP l 0"), "+popped\r\n");
    CHECK(rig.run_until_output(client, expected));
}

TEST_CASE("session: a transaction by steps is answered in the end, too, if it is read last") {
    SessionRig rig;
    rig.terms.limits.output_per_client_high_water = 100;
    rig.terms.limits.in_flight_per_client_max = 8;
    FakeClient& client = rig.make_ready();
    client.socket.room = 0;
    std::string expected = "+MULTI\r\n";
    client.ask({"MULTI"});
    client.ask(gets(500, expected));
    client.ask({"EXEC", "GET x"});
    expected += "+EXEC\r\n+GET x\r\n";
    rig.settle();
    CHECK(run_until(rig.loop, [&] { return client.socket.is_reading; }));
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, expected));
}

TEST_CASE("tunnel: what a client sends is passed on though it does not take what comes") {
    TunnelRig rig;
    rig.terms.limits.output_per_client_high_water = 100;
    FakeClient& client = rig.make_tunnel();
    client.socket.room = 0;
    std::string expected;
    client.ask(gets(300, expected));
    REQUIRE(rig.run_until_asked("GET 299", 1));
    CHECK(client.socket.is_reading);
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, expected));
}

TEST_CASE("tunnel: a client is read on behind RESET, whose reply it has to make way for") {
    TunnelRig rig;
    rig.terms.limits.output_per_client_high_water = 100;
    rig.valkey.answers["RESET"] = "+RESET\r\n";
    FakeClient& client = rig.make_tunnel();
    client.socket.room = 0;
    std::string expected;
    client.ask(gets(300, expected));
    client.ask({"RESET", "GET x", "GET y"});
    expected += "+RESET\r\n+GET x\r\n+GET y\r\n";
    REQUIRE(rig.run_until_asked("RESET", 1));
    rig.settle();
    CHECK(run_until(rig.loop, [&] { return client.socket.is_reading; }));
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, expected));
    CHECK(rig.metrics.upstream_tunnels == 0);
}

TEST_CASE("tunnel: a client is read no faster than the server takes what is sent") {
    TunnelRig rig;
    rig.terms.limits.output_per_client_high_water = 20;
    FakeClient& client = rig.make_tunnel();
    std::string expected;
    client.ask(gets(10, expected));
    CHECK_FALSE(client.socket.is_reading);
    CHECK(rig.metrics.clients_paused_output_total >= 1);
    CHECK(rig.run_until_output(client, expected));
    CHECK(client.socket.is_reading);
}

TEST_CASE("lease: a large command needs none, and goes as any other where none is there at once") {
    const std::string large = "SET k " + std::string(size_t{1} << 20, 'x');
    SessionRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 50;
    rig.valkey.answers[large] = "+OK\r\n";
    FakeClient& client = rig.make_ready();
    FakeClient& other = rig.add_client();
    other.ask({"WATCH k"});
    REQUIRE(rig.run_until_output(other, "+WATCH k\r\n"));
    client.ask({large, "GET a"});
    CHECK(rig.run_until_output(client, "+OK\r\n+GET a\r\n"));
    CHECK(rig.valkey.peer_of(large) == 0);
    CHECK(rig.metrics.upstream_dedicated_waits_total == 0);
}

TEST_CASE("lease: after a large reply commands go on as before where no lease is there") {
    SessionRig rig;
    rig.options.dedicated_max = 1;
    rig.options.queue_timeout_ms = 50;
    const std::string large(size_t{1} << 20, 'x');
    rig.valkey.answers["GET large"] = "$" + std::to_string(large.size()) + "\r\n" + large + "\r\n";
    FakeClient& client = rig.make_ready();
    FakeClient& other = rig.add_client();
    other.ask({"WATCH k"});
    REQUIRE(rig.run_until_output(other, "+WATCH k\r\n"));
    client.ask({"GET large"});
    REQUIRE(run_until(rig.loop, [&] { return client.output().size() > large.size(); }));
    client.socket.written.clear();
    std::string expected;
    client.ask(gets(36, expected));
    CHECK(rig.run_until_output(client, expected));
    CHECK(rig.valkey.peer_of("GET 35") == 0);
}

TEST_CASE("lease: a large command has one connected for the next, while it arrives") {
    SessionRig rig;
    const std::string large = "SET k " + std::string(size_t{2} << 20, 'x');
    rig.valkey.answers[large] = "+OK\r\n";
    FakeClient& client = rig.make_ready();
    const std::string bytes = encoded(large);
    for (size_t at = 0; at < bytes.size(); at += 65536) {
        client.send(std::string_view(bytes).substr(at, 65536));
        rig.settle();
    }
    CHECK(rig.run_until_output(client, "+OK\r\n"));
    CHECK(rig.valkey.peer_of(large) == 1);
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("lease: one that can't be connected costs a large command nothing") {
    SessionRig rig;
    const std::string large = "SET k " + std::string(size_t{1} << 20, 'x');
    rig.valkey.answers[large] = "+OK\r\n";
    FakeClient& client = rig.make_ready();
    rig.valkey.stop_listening();
    for (int i = 0; i < 3; ++i) {
        client.socket.written.clear();
        client.ask({large});
        CHECK(rig.run_until_output(client, "+OK\r\n"));
    }
    CHECK(rig.valkey.peer_of(large) == 0);
}

TEST_CASE("session: behind a cut nothing leaves, whether it is answered or fails") {
    for (const bool is_answered : {false, true}) {
        CAPTURE(is_answered);
        SessionRig rig;
        rig.options.request_timeout_ms = 300;
        rig.terms.when_down = WhenDown::Close;
        rig.silence("GET never");
        rig.silence("GET behind");
        FakeClient& client = rig.make_ready();
        client.socket.room = 0;
        client.ask({"GET a"});
        REQUIRE(rig.run_until_asked("GET a", 1));
        client.ask({"GET never"});
        const uint64_t sent_ms = rig.loop.now_ms();
        REQUIRE(run_until(rig.loop, [&] { return rig.loop.now_ms() >= sent_ms + 150; }));
        client.ask({"GET behind"});
        REQUIRE(run_until(rig.loop, [&] { return rig.metrics.clients_closed_down_total == 1; }));
        if (is_answered) {
            rig.valkey.send(0, "+late\r\n+behind\r\n");
            rig.run_until_read(0);
        } else {
            const uint64_t cut_ms = rig.loop.now_ms();
            REQUIRE(run_until(rig.loop, [&] { return rig.loop.now_ms() >= cut_ms + 400; }));
        }
        CHECK_FALSE(rig.is_ended(client));
        client.socket.room = SIZE_MAX;
        client.session.on_writable();
        REQUIRE(rig.run_until_ended(client));
        CHECK(client.output() == "+GET a\r\n");
        CHECK(rig.metrics.clients_closed_down_total == 1);
    }
}

}  // namespace
}  // namespace nearkey::session_progress_test
