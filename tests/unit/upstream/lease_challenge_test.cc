// A lease that may have a reply left over is lent again only when it has answered a PING that
// nobody could foresee, with that reply and no other before it.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::lease_challenge_test {
namespace {

TEST_CASE("challenge: a doubtful lease is lent again when its own word has come back") {
    NodeRig rig;
    rig.make_ready();
    Connection& doubtful = rig.used_lease("EVAL x 0");
    rig.node->leases().give_back(doubtful, LeaseEnd::Doubtful);
    Connection* const other = rig.lease(Protocol::Resp2, 0);
    CHECK(other != &doubtful);
    REQUIRE(run_until(rig.loop, [&] { return !doubtful.probe().is_doubtful(); }));
    CHECK(rig.lease(Protocol::Resp2, 0) == &doubtful);
    CHECK(rig.valkey.challenges_asked == 1);
    CHECK(rig.metrics.upstream_challenges_total == 1);
    CHECK(rig.metrics.upstream_protocol_errors_total == 0);
}

TEST_CASE("challenge: while it is not answered the lease is nobody's") {
    NodeRig rig;
    rig.valkey.challenge_answer = std::string(FakeValkey::kSilent);
    rig.make_ready();
    Connection& doubtful = rig.used_lease("EVAL x 0");
    rig.node->leases().give_back(doubtful, LeaseEnd::Doubtful);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.challenges_asked == 1; }));
    CHECK(&rig.used_lease("EVAL y 0") != &doubtful);
    CHECK(doubtful.probe().is_doubtful());
}

TEST_CASE("challenge: any other reply closes the lease and is counted, whatever it looks like") {
    const std::string word(40, 'x');
    for (const std::string& answer :
         {std::string("+PONG\r\n"), std::string("$6\r\nhacked\r\n"), std::string(":1\r\n"),
          "$40\r\n" + word + "\r\n", "+" + word + "\r\n", std::string("*1\r\n+PONG\r\n")}) {
        CAPTURE(answer);
        NodeRig rig;
        rig.valkey.challenge_answer = answer;
        rig.make_ready();
        rig.node->leases().give_back(rig.used_lease("EVAL x 0"), LeaseEnd::Doubtful);
        const size_t peer = rig.valkey.peer_of("EVAL x 0");
        REQUIRE(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
        CHECK(rig.metrics.upstream_protocol_errors_total == 1);
        rig.used_lease("EVAL y 0");
        CHECK(rig.valkey.peer_of("EVAL y 0") != peer);
        CHECK(rig.node->health().is_ready);
    }
}

TEST_CASE("challenge: what was left over is not delivered to the next client") {
    NodeRig rig;
    rig.valkey.answers["EVAL x 0"] = "+EVAL x 0\r\n$6\r\nhacked\r\n";
    rig.make_ready();
    Connection* const lease = rig.lease(Protocol::Resp2, 0);
    struct GiveBack final : ReplyReceiver {
        void on_reply_bytes(uint32_t, std::string_view) override {}
        void on_reply_end(uint32_t) override {
            node->leases().give_back(*lease, LeaseEnd::Doubtful);
        }
        bool on_reply_void(uint32_t) override { return false; }
        void on_request_failed(uint32_t, std::string_view) override {}
        Node* node = nullptr;
        Connection* lease = nullptr;
    } receiver;
    receiver.node = rig.node.get();
    receiver.lease = lease;
    lease->send({encoded("EVAL x 0"), &receiver, 0, RequestKind::Write});
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_protocol_errors_total == 1; }));
    const size_t peer = rig.valkey.peer_of("EVAL x 0");
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
}

TEST_CASE("challenge: a server that refuses PING has the lease closed, and is not accused") {
    NodeRig rig;
    rig.valkey.challenge_answer = "-MISCONF no\r\n";
    rig.make_ready();
    rig.node->leases().give_back(rig.used_lease("EVAL x 0"), LeaseEnd::Doubtful);
    const size_t peer = rig.valkey.peer_of("EVAL x 0");
    CHECK(run_until(rig.loop, [&] { return !rig.valkey.is_open(peer); }));
    CHECK(rig.metrics.upstream_protocol_errors_total == 0);
}

TEST_CASE("challenge: no more than dedicated_idle_max leases are asked at a time") {
    NodeRig rig;
    rig.options.dedicated_idle_max = 2;
    rig.valkey.challenge_answer = std::string(FakeValkey::kSilent);
    rig.make_ready();
    for (const char* const line : {"EVAL a 0", "EVAL b 0", "EVAL c 0", "EVAL d 0"})
        rig.node->leases().give_back(rig.used_lease(line), LeaseEnd::Doubtful);
    CHECK(run_until(rig.loop, [&] { return rig.valkey.open_count() == 3; }));
}

TEST_CASE("heartbeat: a reply that is not its own costs the connection") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 10;
    rig.make_ready();
    rig.valkey.answers["PING"] = "$1\r\nx\r\n";
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.upstream_protocol_errors_total > 0; }));
    rig.valkey.answers.erase("PING");
    CHECK(run_until(rig.loop, [&] { return rig.metrics.upstream_connections > 0; }));
}

TEST_CASE("heartbeat: a refusal is an answer") {
    NodeRig rig;
    rig.options.heartbeat_interval_ms = 10;
    rig.make_ready();
    rig.valkey.answers["PING"] = "-BUSY a script runs\r\n";
    const uint64_t start_ms = rig.loop.now_ms();
    run_until(rig.loop, [&] { return rig.loop.now_ms() >= start_ms + 60; });
    CHECK(rig.metrics.upstream_protocol_errors_total == 0);
    CHECK(rig.valkey.is_open(0));
}

}  // namespace
}  // namespace nearkey::lease_challenge_test
