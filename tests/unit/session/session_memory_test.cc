// What a session does when its event loop holds too much.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_memory_test {

TEST_CASE("session: nothing more is run while buffers are too large, and all of it afterwards") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    FakeClient& other = rig.add_client();
    rig.context->memory.set_max(1'000'000, nullptr, 1);
    rig.metrics.upstream_unsent_bytes += 2'000'000;
    client.ask({"GET a", "GET b"});
    rig.settle();
    CHECK(client.output().empty());
    CHECK(rig.valkey.times_asked("GET a") == 0);
    CHECK_FALSE(client.socket.is_reading);
    // Everybody was told.
    CHECK_FALSE(other.socket.is_reading);
    rig.metrics.upstream_unsent_bytes -= 2'000'000;
    REQUIRE(rig.context->memory.may_resume());
    for (const auto& each : rig.clients)
        each->session.resume_after_memory();
    CHECK(rig.run_until_output(client, "+GET a\r\n+GET b\r\n"));
    CHECK(other.socket.is_reading);
}

TEST_CASE("session: its tags are part of what it holds") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"PING"});
    REQUIRE(rig.run_until_output(client, "+PONG\r\n"));
    rig.settle();
    const uint64_t before = rig.metrics.client_memory_bytes;
    client.ask({"NEARKEY TAG " + std::string(RequestTags::kLengthMax, 'x')});
    REQUIRE(rig.run_until_output(client, "+PONG\r\n+OK\r\n"));
    rig.settle();
    const uint64_t held = rig.metrics.client_memory_bytes;
    CHECK(held >= before + RequestTags::kLengthMax);
    client.ask({"RESET"});
    REQUIRE(rig.run_until_output(client, "+PONG\r\n+OK\r\n+RESET\r\n"));
    rig.settle();
    CHECK(rig.metrics.client_memory_bytes + RequestTags::kLengthMax <= held);
}

}  // namespace nearkey::session_memory_test
