// Answers to CLUSTER SLOTS: what they say, and which can't be used.
#include "nearkey/upstream/slot_map.h"

#include "nearkey/resp/reply_writer.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>
#include <vector>

namespace nearkey::slot_map_test {
namespace {

using Step = SlotMapReader::Step;

std::string server(const std::string& host, int port, const std::string& id,
                   const std::string& more = "*0\r\n") {
    const std::string host_reply =
        host == "null" ? "$-1\r\n" : fmt::format("${}\r\n{}\r\n", host.size(), host);
    return fmt::format("*4\r\n{}:{}\r\n${}\r\n{}\r\n{}", host_reply, port, id.size(), id, more);
}

std::string range(int first, int last, const std::vector<std::string>& servers) {
    std::string reply = fmt::format("*{}\r\n:{}\r\n:{}\r\n", servers.size() + 2, first, last);
    for (const std::string& each : servers)
        reply += each;
    return reply;
}

std::string list(const std::vector<std::string>& ranges) {
    std::string reply = fmt::format("*{}\r\n", ranges.size());
    for (const std::string& each : ranges)
        reply += each;
    return reply;
}

SlotMap read(const std::string& reply, size_t ranges = 1) {
    SlotMapReader reader(reply, "asked");
    Step step = Step::More;
    while (step == Step::More)
        step = reader.step(ranges);
    REQUIRE(step == Step::Done);
    return reader.take();
}

std::string refused(const std::string& reply) {
    SlotMapReader reader(reply, "asked");
    Step step = Step::More;
    while (step == Step::More)
        step = reader.step(1);
    REQUIRE(step == Step::Refused);
    return reader.refusal();
}

const std::string kThree =
    list({range(0, 5460, {server("10.0.0.1", 7000, "a"), server("10.0.0.4", 7003, "d")}),
          range(5461, 10922, {server("10.0.0.2", 7001, "b")}),
          range(10923, 16383, {server("10.0.0.3", 7002, "c")})});

TEST_CASE("slot map: owners, replicas and how many slots each has") {
    for (const size_t ranges : {size_t{1}, size_t{2}, size_t{100}}) {
        const SlotMap map = read(kThree, ranges);
        CHECK(map.served() == kSlots);
        REQUIRE(map.servers().size() == 4);
        CHECK(map.owner_of(0)->id == "a");
        CHECK(map.owner_of(5460)->id == "a");
        CHECK(map.owner_of(5461)->endpoint == Endpoint{"10.0.0.2", 7001});
        CHECK(map.owner_of(16383)->id == "c");
        CHECK(map.owner_of(0)->slots == 5461);
        const SlotMap::Server& replica = map.servers()[1];
        CHECK(replica.is_replica);
        CHECK(map.servers()[replica.primary].id == "a");
        CHECK(replica.slots == 0);
    }
}

TEST_CASE("slot map: slots that nobody owns") {
    const SlotMap map = read(list({range(5, 9, {server("h", 1, "a")})}));
    CHECK(map.served() == 5);
    CHECK(map.owner_of(4) == nullptr);
    CHECK(map.owner_of(5) != nullptr);
    CHECK(map.owner_of(10) == nullptr);
}

TEST_CASE("slot map: a host that is not told is the one that was asked") {
    const SlotMap map = read(
        list({range(0, 1, {server("null", 7000, "a")}), range(2, 3, {server("", 7001, "b")})}));
    CHECK(map.owner_of(0)->endpoint == Endpoint{"asked", 7000});
    CHECK(map.owner_of(2)->endpoint == Endpoint{"asked", 7001});
}

TEST_CASE("slot map: an unknown host has an address beside it, or is the one that was asked") {
    const std::string ip = "*2\r\n$2\r\nip\r\n$8\r\n10.0.0.9\r\n";
    const std::string name = "*2\r\n$8\r\nhostname\r\n$1\r\nx\r\n";
    const std::string map_of_resp3 = "%1\r\n+ip\r\n+10.0.0.8\r\n";
    const SlotMap map = read(list({range(0, 0, {server("?", 7000, "a", ip)}),
                                   range(1, 1, {server("?", 7001, "b", name)}),
                                   range(2, 2, {server("h", 7002, "c", ip)}),
                                   range(3, 3, {server("?", 7003, "d", map_of_resp3)})}));
    CHECK(map.owner_of(0)->endpoint == Endpoint{"10.0.0.9", 7000});
    CHECK(map.owner_of(1)->endpoint == Endpoint{"asked", 7001});
    CHECK(map.owner_of(2)->endpoint == Endpoint{"h", 7002});
    CHECK(map.owner_of(3)->endpoint == Endpoint{"10.0.0.8", 7003});
}

TEST_CASE("slot map: each server is where the addresses say, and an owner needs a port") {
    const std::string reply = list(
        {range(0, 0, {server("10.0.0.1", 7000, "a")}), range(1, 1, {server("10.0.0.2", 0, "b")})});
    SlotMap map = read(reply);
    CHECK(map.has_reachable_owner());
    const AddressMap addresses({"10.0.0.1:7000=[::1]:9000", "10.0.0.2=other"});
    for (size_t number = 0; number < map.servers().size(); ++number)
        CHECK(&map.translate(number, addresses) == &map.servers()[number]);
    CHECK(map.owner_of(0)->endpoint == Endpoint{"::1", 9000});
    CHECK(map.owner_of(1)->endpoint == Endpoint{"10.0.0.2", 0});
    CHECK_FALSE(read(list({range(0, 0, {server("h", 0, "a")})})).has_reachable_owner());
}

TEST_CASE("slot map: an older server tells no ids") {
    const SlotMap map = read("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\nh\r\n:7000\r\n");
    CHECK(map.owner_of(9)->id == "h:7000");
}

TEST_CASE("slot map: what can't be used is refused with a reason") {
    CHECK(refused("-ERR This instance has cluster support disabled\r\n") ==
          "ERR This instance has cluster support disabled");
    CHECK(refused("*0\r\n") == "it knows of no server that owns a slot");
    CHECK(refused("+OK\r\n") == "it is no list of slots");
    CHECK(refused("") == "it is no list of slots");
    CHECK(refused(list({range(0, 5, {server("h", 1, "a")}), range(5, 6, {server("h", 2, "b")})})) ==
          "it names two owners of slot 5");
    CHECK(refused(list({range(0, 16384, {server("h", 1, "a")})})) ==
          "it tells of slots 0 to 16384");
    CHECK(refused(list({range(7, 6, {server("h", 1, "a")})})) == "it tells of slots 7 to 6");
    CHECK(refused(list({range(-1, 6, {server("h", 1, "a")})})) == "it tells of slots -1 to 6");
    CHECK(refused(list({range(0, 6, {})})) == "it is no list of slots");
    CHECK(refused(list({range(0, 6, {server("h", 65536, "a")})})) == "it is no list of slots");
    CHECK(refused(kThree + "+more\r\n") == "it has more than a list of slots");
}

TEST_CASE("slot map: names and words without end are not kept") {
    const std::string name(255, 'n');
    CHECK(read(list({range(0, 1, {server(name, 7000, "a")})})).servers()[0].endpoint.host == name);
    CHECK(refused(list({range(0, 1, {server(name + "n", 7000, "a")})})) ==
          "it names a host of 256 bytes");
    const SlotMap map = read(list(
        {range(0, 1, {server("?", 7000, "a", "*2\r\n$2\r\nip\r\n$256\r\n" + name + "n\r\n")})}));
    CHECK(map.servers()[0].endpoint.host == "asked");
    CHECK(refused("-ERR " + std::string(100'000, 'x') + "\r\n").size() == 200);
    CHECK(refused("-ERR no\r\n") == "ERR no");
}

TEST_CASE("slot map: a reply that is cut anywhere is refused") {
    for (size_t size = 0; size < kThree.size(); ++size) {
        CAPTURE(size);
        CHECK(!refused(kThree.substr(0, size)).empty());
    }
}

TEST_CASE("slot map: lengths that are lies end") {
    CHECK(!refused("*9223372036854775807\r\n").empty());
    CHECK(!refused("*1\r\n*9223372036854775807\r\n:0\r\n:1\r\n").empty());
    CHECK(!refused("*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$9223372036854775807\r\nh\r\n").empty());
    CHECK(!refused("*1\r\n*3\r\n:0\r\n:1\r\n*4\r\n$1\r\nh\r\n:1\r\n$1\r\na\r\n%9223372036854775807"
                   "\r\n")
               .empty());
}

}  // namespace
}  // namespace nearkey::slot_map_test
