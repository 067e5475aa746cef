// A connection that one owner has to itself: its loss is told, and it may become a tunnel.
#include "nearkey/upstream/connection.h"

#include "connection_rig.h"

#include <doctest/doctest.h>

namespace nearkey::connection_tunnel_test {
namespace {

struct Owner final : ConnectionOwner {
    void on_tunnel_room() override { ++rooms; }
    void on_tunnel_bytes(std::string_view bytes) override { read += bytes; }
    void on_connection_lost() override { ++lost; }
    std::string read;
    int lost = 0;
    int rooms = 0;
};

TEST_CASE("owned connection: its loss is told once, behind what was in flight") {
    ConnectionRig rig;
    Collector receiver;
    Owner owner;
    rig.redials = false;
    rig.valkey.answers["SET a 1"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.connection->use().set_owner(&owner);
    rig.send(receiver, 1, "SET a 1", RequestKind::Write);
    REQUIRE(rig.run_until_asked("SET a 1", 1));
    rig.valkey.close(0);
    REQUIRE(rig.run_until_told(receiver, 1));
    CHECK(owner.lost == 1);
    CHECK(receiver.told == ToldWords{"1 failed UPSTREAMLOST"});
    CHECK(rig.lost.size() == 1);
}

TEST_CASE("owned connection: a failed dial is no loss, nor is one that nobody owns any more") {
    ConnectionRig rig;
    Owner owner;
    rig.redials = false;
    rig.valkey.hangs_up = true;
    rig.connection->use().set_owner(&owner);
    rig.connection->dial();
    REQUIRE(run_until(rig.loop, [&] { return rig.lost.size() == 1; }));
    CHECK(owner.lost == 0);
    rig.valkey.hangs_up = false;
    rig.make_ready();
    rig.connection->use().set_owner(nullptr);
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return rig.lost.size() == 2; }));
    CHECK(owner.lost == 0);
}

TEST_CASE("owned connection: when it is lost the server knows no identity of it any more") {
    ConnectionRig rig;
    rig.make_ready();
    CHECK(rig.connection->use().identity() == ClientIdentity{"nearkey", "", ""});
    rig.connection->use().set_identity({"me", "lib", "1"});
    rig.redials = false;
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.lost.empty(); }));
    CHECK(rig.connection->use().identity() == ClientIdentity{"nearkey", "", ""});
}

TEST_CASE("tunnel: it begins behind the replies that are owed, even in the same read") {
    ConnectionRig rig;
    Collector receiver;
    Owner owner;
    rig.valkey.answers["GET a"] = FakeValkey::kSilent;
    rig.valkey.answers["GET b"] = FakeValkey::kSilent;
    rig.make_ready();
    rig.connection->use().set_owner(&owner);
    rig.send(receiver, 1, "GET a", RequestKind::Write);
    rig.connection->begin_tunnel();
    rig.connection->tunnel().send(encoded("GET b"));
    REQUIRE(rig.run_until_asked("GET b", 1));
    rig.valkey.send(0, "+a\r\n+b\r\nwhatever");
    REQUIRE(run_until(rig.loop, [&] { return owner.read.size() == 12; }));
    CHECK(receiver.told == ToldWords{"1 +a"});
    CHECK(owner.read == "+b\r\nwhatever");
}

TEST_CASE("tunnel: what is sent leaves before the end of sending, and answers still arrive") {
    ConnectionRig rig;
    Owner owner;
    rig.valkey.stays_after_end = true;
    rig.make_ready();
    rig.connection->use().set_owner(&owner);
    rig.connection->begin_tunnel();
    const std::string big = "SET a " + std::string(size_t{1} << 20, 'v');
    rig.valkey.answers[big] = FakeValkey::kSilent;
    rig.connection->tunnel().send(encoded(big));
    rig.connection->tunnel().finish_sending();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.has_ended(0); }));
    CHECK(rig.valkey.asked_when_ready(0) == std::vector<std::string>{big});
    rig.valkey.send(0, "+late\r\n");
    REQUIRE(run_until(rig.loop, [&] { return owner.read == "+late\r\n"; }));
    CHECK(owner.lost == 0);
    rig.redials = false;
    rig.valkey.close(0);
    REQUIRE(run_until(rig.loop, [&] { return owner.lost == 1; }));
}

TEST_CASE("tunnel: while reading is paused nothing arrives, and all of it afterwards") {
    ConnectionRig rig;
    Owner owner;
    rig.make_ready();
    rig.connection->use().set_owner(&owner);
    rig.connection->begin_tunnel();
    rig.connection->tunnel().pause_reading();
    rig.valkey.send(0, "+one\r\n");
    // Writing must not make it read again.
    rig.connection->tunnel().send(encoded("GET a"));
    REQUIRE(rig.run_until_asked("GET a", 1));
    int looks = 0;
    run_until(rig.loop, [&] { return ++looks > 5; });
    CHECK(owner.read.empty());
    rig.connection->tunnel().resume_reading();
    REQUIRE(run_until(rig.loop, [&] { return owner.read == "+one\r\n+GET a\r\n"; }));
}

}  // namespace
}  // namespace nearkey::connection_tunnel_test
