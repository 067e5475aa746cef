// Another upstream that is tried, and is lost again before it is adopted.
#include "nearkey/upstream/node.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>

namespace nearkey::node_target_test {

TEST_CASE("target: one that is lost before it is adopted is adopted all the same, and dialled") {
    NodeRig rig;
    FakeValkey other(rig.loop, rig.directory / "other");
    rig.make_ready();
    Trial told;
    UpstreamUrl url = rig.url;
    url.path = rig.directory / "other";
    rig.node->topology().try_target(std::make_unique<UpstreamTarget>(url, nullptr), told);
    REQUIRE(run_until(rig.loop, [&] { return told.proven == 1; }));
    other.stop_listening();
    other.close_all();
    rig.settle();
    rig.node->topology().adopt_target();
    other.listen();
    Collector receiver;
    rig.send(*rig.node->shared().acquire(Protocol::Resp2, 0), receiver, "ECHO x");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(other.times_asked("ECHO x") == 1);
    CHECK(told.refused == 0);
}

TEST_CASE("target: a primary that is lost before it is adopted is forgotten") {
    NodeRig rig;
    rig.valkey.answers["HELLO 2"] =
        "*6\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
    rig.make_ready();
    Trial told;
    rig.node->topology().seek_primary(nullptr, told);
    REQUIRE(run_until(rig.loop, [&] { return told.proven == 1; }));
    const size_t candidate = rig.valkey.peer_count() - 1;
    REQUIRE(candidate == 1);
    rig.valkey.stop_listening();
    rig.valkey.close(candidate);
    rig.settle();
    rig.node->topology().adopt_target();
    rig.valkey.listen();
    Collector receiver;
    rig.send(*rig.node->shared().acquire(Protocol::Resp2, 0), receiver, "ECHO x");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(rig.valkey.peer_of("ECHO x") == 0);
    CHECK(told.refused == 0);
}

// Another loop may have had the last word meanwhile.
TEST_CASE("target: a primary that is found to be a replica once it was proven can be adopted") {
    NodeRig rig;
    const std::string hello =
        "*6\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n";
    rig.valkey.answers["HELLO 2"] = hello + "$6\r\nmaster\r\n";
    rig.make_ready();
    Trial told;
    rig.node->topology().seek_primary(nullptr, told);
    REQUIRE(run_until(rig.loop, [&] { return told.proven == 1; }));
    rig.valkey.answers["HELLO 2"] = hello + "$5\r\nslave\r\n";
    const size_t dialled = rig.valkey.peer_count();
    rig.valkey.close(dialled - 1);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.peer_count() > dialled + 2; }));
    CHECK(told.refused == 0);
    rig.node->topology().adopt_target();
    Collector receiver;
    rig.send(*rig.node->shared().acquire(Protocol::Resp2, 0), receiver, "ECHO x");
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(rig.valkey.peer_of("ECHO x") == 0);
}

}  // namespace nearkey::node_target_test
