// A subscriber whose server is the primary no more.
#include "nearkey/session/session.h"

#include "failover_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_subscriber_test {
namespace {

using Lines = std::vector<std::string>;

std::string frame(char type, const std::string& kind, const std::string& name,
                  const std::string& last = ":1\r\n") {
    return std::string(1, type) + "3\r\n$" + std::to_string(kind.size()) + "\r\n" + kind + "\r\n$" +
           std::to_string(name.size()) + "\r\n" + name + "\r\n" + last;
}

// A client that speaks RESP2 or 3, and has nothing yet.
struct SubscriberRig : FailoverRig {
    explicit SubscriberRig(int protocol) : type(protocol == 3 ? '>' : '*') {
        for (FakeValkey* const server : {&valkey, &other}) {
            for (const std::string name : {"a", "b", "c"}) {
                server->answers["SUBSCRIBE " + name] = frame(type, "subscribe", name);
                server->answers["subscribe " + name] = frame(type, "subscribe", name);
            }
            server->answers["subscribe a b"] =
                frame(type, "subscribe", "a") + frame(type, "subscribe", "b");
            server->answers["PSUBSCRIBE p*"] = frame(type, "psubscribe", "p*");
            server->answers["psubscribe p*"] = frame(type, "psubscribe", "p*");
            server->answers["UNSUBSCRIBE a"] = frame(type, "unsubscribe", "a");
            server->answers["UNSUBSCRIBE"] = frame(type, "unsubscribe", "a");
        }
    }
    FakeClient& make_client() {
        FakeClient& client = make_ready();
        if (type == '>') {
            client.ask({"HELLO 3"});
            settle();
            client.socket.written.clear();
        }
        return client;
    }
    std::string message(const std::string& text) const {
        return frame(type, "message", "a", "$1\r\n" + text + "\r\n");
    }
    std::string subscribed(const std::string& name) const { return frame(type, "subscribe", name); }
    const char type;
};

TEST_CASE("failover: a subscriber is subscribed anew, and hears nothing of it") {
    for (const int protocol : {2, 3}) {
        CAPTURE(protocol);
        SubscriberRig rig(protocol);
        FakeClient& client = rig.make_client();
        client.ask({"SUBSCRIBE a", "SUBSCRIBE b", "PSUBSCRIBE p*"});
        std::string expected =
            rig.subscribed("a") + rig.subscribed("b") + frame(rig.type, "psubscribe", "p*");
        REQUIRE(rig.run_until_output(client, expected));
        const size_t former = rig.valkey.peer_of("SUBSCRIBE a");
        rig.valkey.send(former, rig.message("1"));
        expected += rig.message("1");
        REQUIRE(rig.run_until_output(client, expected));
        rig.fail_over();
        REQUIRE(rig.run_until_asked_other("psubscribe p*", 1));
        CHECK(rig.run_until_closed(former));
        const size_t peer = rig.other.peer_of("psubscribe p*");
        CHECK(rig.other.asked_when_ready(peer) ==
              Lines{"CLIENT SETNAME ", "subscribe a b", "psubscribe p*"});
        rig.other.send(peer, rig.message("2"));
        expected += rig.message("2");
        CHECK(rig.run_until_output(client, expected));
        CHECK(rig.metrics.clients_moved_subscriber_total == 1);
        CHECK(rig.metrics.upstream_tunnels == 1);
        CHECK(rig.node->leases().leased().size() == 1);
        // And goes on as before.
        client.ask({"SUBSCRIBE c", "PING", "UNSUBSCRIBE a"});
        expected += rig.subscribed("c") + "+PONG\r\n" + frame(rig.type, "unsubscribe", "a");
        CHECK(rig.run_until_output(client, expected));
        CHECK(rig.other.peer_of("SUBSCRIBE c") == peer);
        client.session.abort();
        CHECK(rig.run_until_closed(former));
        CHECK(rig.metrics.upstream_tunnels == 0);
        CHECK(rig.node->leases().leased().size() == 0);
    }
}

// The primary changes when `said` bytes of what the former has to say have come.
void run_failover_at(int protocol, size_t said) {
    CAPTURE(protocol);
    CAPTURE(said);
    SubscriberRig rig(protocol);
    rig.silence("SUBSCRIBE a");
    rig.silence("SUBSCRIBE b");
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a", "SUBSCRIBE b"});
    REQUIRE(rig.run_until_asked("SUBSCRIBE b", 1));
    const size_t former = rig.valkey.peer_of("SUBSCRIBE a");
    const std::string all = rig.subscribed("a") + rig.message("1") + rig.subscribed("b") +
                            rig.message("2") + rig.message("3");
    const size_t settled =
        rig.subscribed("a").size() + rig.message("1").size() + rig.subscribed("b").size();
    const size_t length = rig.message("1").size();
    const bool may_move = said >= settled && (said - settled) % length == 0;
    rig.valkey.send(former, all.substr(0, said));
    rig.run_until_read(former);
    rig.fail_over();
    if (may_move) {
        REQUIRE(rig.run_until_asked_other("subscribe a b", 1));
        rig.other.send(rig.other.peer_of("subscribe a b"), rig.message("4"));
        CHECK(rig.run_until_output(client, all.substr(0, said) + rig.message("4")));
        CHECK_FALSE(rig.is_ended(client));
    } else {
        CHECK(rig.run_until_ended(client));
        CHECK(all.substr(0, said).starts_with(client.output()));
        CHECK(rig.metrics.clients_moved_subscriber_total == 0);
    }
}

TEST_CASE("failover: a subscriber moves between two replies, and once each is confirmed") {
    for (const int protocol : {2, 3}) {
        for (size_t said = 0; said <= 150; ++said)
            run_failover_at(protocol, said);
    }
}

TEST_CASE("failover: a subscriber moves only if it was nothing else") {
    const std::vector<Lines> others{
        {"GET x"},    {"CLIENT REPLY ON"}, {"AUTH x"},           {"HELLO 2"},
        {"WHAT now"}, {"SUBSCRIBE"},       {"CLIENT SETNAME me"}};
    for (const Lines& lines : others) {
        for (const bool is_first : {false, true}) {
            CAPTURE(lines.front());
            CAPTURE(is_first);
            if (is_first && lines.front() != "AUTH x" && lines.front() != "CLIENT REPLY ON")
                continue;
            SubscriberRig rig(2);
            FakeClient& client = rig.make_client();
            Lines all{"SUBSCRIBE a"};
            all.insert(is_first ? all.begin() : all.end(), lines.begin(), lines.end());
            client.ask(all);
            REQUIRE(rig.run_until_asked(all.back(), 1));
            rig.run_until_read(rig.valkey.peer_of(all.back()));
            rig.fail_over();
            CHECK(rig.run_until_ended(client));
            CHECK(rig.is_other_spared({"SUBSCRIBE a"}));
            CHECK(rig.metrics.upstream_tunnels == 0);
            CHECK(rig.metrics.clients_moved_subscriber_total == 0);
        }
    }
}

TEST_CASE("failover: a subscriber that was refused a command is closed") {
    SubscriberRig rig(2);
    FakeClient& client = rig.make_client();
    std::vector<AccessRule> rules;
    REQUIRE(parse_access_rules("+@all -set", rules) == "");
    rig.terms.access = CommandAccess(std::move(rules), rig.node->catalog().commands());
    client.ask({"SUBSCRIBE a", "SET a 1"});
    REQUIRE(rig.run_until_asked("nearkey:refused:set", 1));
    rig.run_until_read(rig.valkey.peer_of("nearkey:refused:set"));
    rig.fail_over();
    CHECK(rig.run_until_ended(client));
    CHECK(rig.is_other_spared({"SUBSCRIBE a"}));
}

TEST_CASE("failover: a subscriber that sends no more is closed") {
    SubscriberRig rig(2);
    rig.valkey.stays_after_end = true;
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
    client.session.on_end();
    rig.fail_over();
    CHECK(rig.run_until_ended(client));
    CHECK(rig.is_other_spared({"SUBSCRIBE a"}));
}

TEST_CASE("failover: a subscriber that came out of a transaction is closed") {
    SubscriberRig rig(2);
    rig.valkey.answers["WATCH k"] = "+OK\r\n";
    FakeClient& client = rig.make_client();
    client.ask({"WATCH k"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_output(client, "+OK\r\n" + rig.subscribed("a")));
    rig.fail_over();
    CHECK(rig.run_until_ended(client));
}

TEST_CASE("failover: a subscriber with a PING or a subscription in flight is closed") {
    for (const std::string line : {"PING x", "SUBSCRIBE b", "UNSUBSCRIBE"}) {
        CAPTURE(line);
        SubscriberRig rig(2);
        rig.silence(line);
        FakeClient& client = rig.make_client();
        client.ask({"SUBSCRIBE a"});
        REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
        client.ask({line});
        REQUIRE(rig.run_until_asked(line, 1));
        rig.fail_over();
        CHECK(rig.run_until_ended(client));
        CHECK(client.output() == rig.subscribed("a"));
    }
}

TEST_CASE("failover: what a subscriber sends on its way is sent behind, and answered once") {
    SubscriberRig rig(2);
    rig.other.answers["subscribe a"] = "";
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
    rig.fail_over();
    client.ask({"SUBSCRIBE b"});
    REQUIRE(rig.run_until_asked_other("SUBSCRIBE b", 1));
    const size_t peer = rig.other.peer_of("SUBSCRIBE b");
    CHECK(rig.other.asked_when_ready(peer) ==
          Lines{"CLIENT SETNAME ", "subscribe a", "SUBSCRIBE b"});
    rig.settle();
    // The other answers b at once: it takes that for the confirmation of a.
    rig.other.send(peer, rig.message("1") + rig.subscribed("b"));
    CHECK(
        rig.run_until_output(client, rig.subscribed("a") + rig.message("1") + rig.subscribed("b")));
    CHECK(rig.metrics.clients_moved_subscriber_total == 1);
}

TEST_CASE("failover: a subscriber with nothing left moves as well") {
    SubscriberRig rig(2);
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a", "UNSUBSCRIBE"});
    const std::string expected = rig.subscribed("a") + frame('*', "unsubscribe", "a");
    REQUIRE(rig.run_until_output(client, expected));
    rig.fail_over();
    client.ask({"SUBSCRIBE b"});
    CHECK(rig.run_until_output(client, expected + rig.subscribed("b")));
    CHECK(rig.other.times_asked("SUBSCRIBE b") == 1);
}

// Its question to the new primary fails while it is still being asked.
TEST_CASE("failover: a subscriber that finds the queue full is closed") {
    for (const bool waits_for_lease : {false, true}) {
        CAPTURE(waits_for_lease);
        SubscriberRig rig(2);
        FakeClient& first = rig.make_client();
        FakeClient& second = rig.add_client();
        first.ask({"SUBSCRIBE a"});
        second.ask({"SUBSCRIBE b"});
        REQUIRE(rig.run_until_output(first, rig.subscribed("a")));
        REQUIRE(rig.run_until_output(second, rig.subscribed("b")));
        if (waits_for_lease) rig.options.dedicated_max = 1;
        rig.options.queue_commands_max = 0;
        rig.fail_over();
        CHECK(rig.run_until_ended(first));
        CHECK(rig.run_until_ended(second));
        CHECK(rig.is_other_spared({"subscribe a", "subscribe b"}));
        CHECK(rig.metrics.upstream_tunnels == 0);
        CHECK(rig.metrics.clients_moved_subscriber_total == 0);
        CHECK(rig.node->leases().leased().size() == 0);
    }
}

TEST_CASE("failover: a subscriber that is refused at the new primary is closed") {
    SubscriberRig rig(2);
    rig.other.answers["subscribe a"] = "-NOPERM no\r\n";
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
    rig.fail_over();
    CHECK(rig.run_until_ended(client));
    CHECK(client.output() == rig.subscribed("a"));
    CHECK(rig.metrics.clients_moved_subscriber_total == 0);
    CHECK(rig.metrics.upstream_tunnels == 0);
    CHECK(rig.node->leases().leased().size() == 0);
}

TEST_CASE("failover: a subscriber is closed where the new primary is lost before it is there") {
    for (const bool is_dialled : {false, true}) {
        CAPTURE(is_dialled);
        SubscriberRig rig(2);
        rig.options.queue_timeout_ms = 50;
        rig.other.answers["subscribe a"] = "";
        FakeClient& client = rig.make_client();
        client.ask({"SUBSCRIBE a"});
        REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
        rig.fail_over();
        if (is_dialled) REQUIRE(rig.run_until_asked_other("subscribe a", 1));
        rig.other.stop_listening();
        rig.other.close_all();
        CHECK(rig.run_until_ended(client));
        CHECK(client.output() == rig.subscribed("a"));
        CHECK(rig.node->leases().leased().size() == 0);
        CHECK(rig.metrics.clients_moved_subscriber_total == 0);
    }
}

TEST_CASE("failover: a subscriber that leaves on its way is gone") {
    SubscriberRig rig(2);
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
    rig.fail_over();
    client.session.abort();
    rig.settle();
    CHECK(rig.other.times_asked("subscribe a") == 0);
    CHECK(rig.node->leases().leased().size() == 0);
    CHECK(rig.metrics.upstream_tunnels == 0);
}

TEST_CASE("failover: subscribers queue for leases as others do, or are closed in the end") {
    for (const bool is_freed : {true, false}) {
        CAPTURE(is_freed);
        SubscriberRig rig(2);
        rig.options.dedicated_max = 1;
        if (!is_freed) rig.options.queue_timeout_ms = 50;
        rig.other.answers["EVAL x 0"] = "";
        FakeClient& client = rig.make_client();
        client.ask({"SUBSCRIBE a"});
        REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
        FakeClient& next = rig.add_client();
        next.ask({"EVAL x 0"});
        rig.settle();
        rig.fail_over();
        REQUIRE(rig.run_until_asked_other("EVAL x 0", 1));
        if (is_freed) {
            rig.other.send(rig.other.peer_of("EVAL x 0"), ":1\r\n");
            REQUIRE(rig.run_until_asked_other("subscribe a", 1));
            rig.other.send(rig.other.peer_of("subscribe a"), rig.message("1"));
            CHECK(rig.run_until_output(client, rig.subscribed("a") + rig.message("1")));
        } else {
            CHECK(rig.run_until_ended(client));
            CHECK(client.output() == rig.subscribed("a"));
        }
    }
}

TEST_CASE("failover: a subscriber whose client takes nothing is read no faster after it") {
    SubscriberRig rig(2);
    rig.terms.limits.output_per_client_high_water = 1000;
    FakeClient& client = rig.make_client();
    client.ask({"SUBSCRIBE a"});
    REQUIRE(rig.run_until_output(client, rig.subscribed("a")));
    client.socket.room = 0;
    const std::string large =
        frame('*', "message", "a", "$1000\r\n" + std::string(1000, 'x') + "\r\n");
    rig.valkey.send(rig.valkey.peer_of("SUBSCRIBE a"), large);
    rig.run_until_read(rig.valkey.peer_of("SUBSCRIBE a"));
    REQUIRE(rig.metrics.clients_paused_output_total == 1);
    rig.fail_over();
    REQUIRE(rig.run_until_asked_other("subscribe a", 1));
    const size_t peer = rig.other.peer_of("subscribe a");
    rig.settle();
    rig.other.send(peer, rig.message("1"));
    rig.settle();
    CHECK(rig.other.unread(peer) > 0);
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    CHECK(rig.run_until_output(client, rig.subscribed("a") + large + rig.message("1")));
}

}  // namespace
}  // namespace nearkey::session_subscriber_test
