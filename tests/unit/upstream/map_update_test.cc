#include "nearkey/upstream/map_update.h"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <cstdint>
#include <set>
#include <string>

namespace nearkey::map_update_test {
namespace {

using Stage = MapUpdate::Stage;
constexpr int kServers = 1000;

// Each owns slots that are next to each other.
std::string slots_of_many() {
    std::string reply = fmt::format("*{}\r\n", kServers);
    for (int i = 0; i < kServers; ++i) {
        reply += fmt::format("*3\r\n:{}\r\n:{}\r\n*3\r\n$4\r\nhost\r\n:{}\r\n$40\r\n{:040}\r\n",
                             kSlots * i / kServers, kSlots * (i + 1) / kServers - 1, 7000 + i, i);
    }
    return reply;
}

MapUpdate read_whole(const std::string& reply) {
    MapUpdate update(reply, "asked");
    while (update.stage() == Stage::Reading)
        update.read();
    return update;
}

}  // namespace

TEST_CASE("map update: a thousand servers are read, dialled and compared in small pieces") {
    MapUpdate update(slots_of_many(), "asked");
    int pieces = 0;
    for (; update.stage() == Stage::Reading; ++pieces)
        update.read();
    CHECK(pieces == 4);
    REQUIRE(update.stage() == Stage::Members);
    std::set<std::string> found;
    for (pieces = 0; update.stage() == Stage::Members; ++pieces) {
        const size_t before = found.size();
        update.find_members(AddressMap(), [&](const SlotMap::Server& server) {
            found.insert(server.id);
            return MapUpdate::Found{static_cast<uint16_t>(server.endpoint.port - 7000), true};
        });
        CHECK(found.size() - before <= 16);
    }
    CHECK(found.size() == kServers);
    REQUIRE(update.stage() == Stage::Slots);
    int slots = 0;
    for (pieces = 0; update.stage() == Stage::Slots; ++pieces) {
        update.compare_slots([&](uint16_t slot, uint16_t number, const SlotMap::Server* server) {
            CHECK(slot == slots++);
            CHECK(server == update.map().owner_of(slot));
            CHECK(number == server->endpoint.port - 7000);
        });
    }
    CHECK(pieces == 8);
    CHECK(slots == kSlots);
    CHECK(update.stage() == Stage::Done);
    CHECK(update.take_map().servers().size() == kServers);
}

TEST_CASE(
    "map update: servers that are known cost less, and more of them are looked up in a turn") {
    MapUpdate update = read_whole(slots_of_many());
    int pieces = 0;
    for (; update.stage() == Stage::Members; ++pieces) {
        update.find_members(AddressMap({"host:7999=elsewhere:1"}), [&](const SlotMap::Server&) {
            return MapUpdate::Found{0, false};
        });
    }
    CHECK(pieces == 2);
    CHECK(update.map().owner_of(kSlots - 1)->endpoint == Endpoint{"elsewhere", 1});
}

TEST_CASE("map update: who owns nothing, or can't be dialled, is no member") {
    MapUpdate update = read_whole(
        "*2\r\n*3\r\n:0\r\n:0\r\n*3\r\n$1\r\na\r\n:0\r\n$1\r\na\r\n"
        "*4\r\n:1\r\n:1\r\n*3\r\n$1\r\nb\r\n:7000\r\n$1\r\nb\r\n*3\r\n$1\r\nc\r\n:7001\r\n$"
        "1\r\nc\r\n");
    std::string found;
    update.find_members(AddressMap(), [&](const SlotMap::Server& server) {
        found += server.id;
        return MapUpdate::Found{7, true};
    });
    CHECK(found == "b");
    update.compare_slots([](uint16_t slot, uint16_t number, const SlotMap::Server* server) {
        CHECK(number == (slot == 1 ? 7 : MapUpdate::kNobody));
        CHECK((server == nullptr) == (slot > 1));
    });
}

TEST_CASE("map update: what can't be read, or is not to be believed, is refused") {
    MapUpdate update = read_whole("-ERR no cluster\r\n");
    CHECK(update.stage() == Stage::Refused);
    CHECK(update.refusal() == "ERR no cluster");
    MapUpdate other = read_whole(slots_of_many());
    other.refuse();
    CHECK(other.stage() == Stage::Refused);
}

}  // namespace nearkey::map_update_test
