// The place of commands in a cluster, by the server's own COMMAND (dispatch/command_reply.resp).
#include "nearkey/dispatch/placement.h"

#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/value.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::placement_test {
namespace {

using Where = Placement::Where;

const CommandTable& table() {
    static const CommandTable made = [] {
        std::ifstream file("tests/unit/dispatch/command_reply.resp", std::ios::binary);
        const auto reply = parse_value(std::string{std::istreambuf_iterator<char>(file), {}});
        REQUIRE(reply.has_value());
        return CommandTable(*reply);
    }();
    return made;
}

Placement placed(const std::string& line) {
    std::istringstream words(line);
    const std::vector<std::string> all(std::istream_iterator<std::string>(words), {});
    std::string bytes = "*" + std::to_string(all.size()) + "\r\n";
    for (const std::string& word : all)
        bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
    CommandParser parser(1 << 20);
    REQUIRE(parser.next(bytes) == ParseResult::Command);
    std::vector<std::string_view> keys;
    return place(table().find(parser.command()), parser.command(), keys);
}

void check_slot_of(const std::string& line, std::string_view key) {
    CAPTURE(line);
    const Placement placement = placed(line);
    CHECK(placement.where == Where::Slot);
    CHECK(placement.slot == slot_of(key));
}

TEST_CASE("placement: a number of keys is read as the server's own search for a node reads it") {
    check_slot_of("EVAL script 1.5 a", "a");
    check_slot_of("LMPOP 01 a LEFT", "a");
    check_slot_of("ZUNION +2x a b", "a");
    check_slot_of("SINTERCARD 4294967297 a", "a");
    for (const char* line : {"EVAL script abc a", "EVAL script 0.9 a", "LMPOP -1 a LEFT",
                             "ZUNION 3 a b", "SINTERCARD 99999999999999999999 a"}) {
        CAPTURE(line);
        CHECK(placed(line).where == Where::Anywhere);
    }
}

TEST_CASE("placement: the first key decides, wherever it stands") {
    check_slot_of("GET k", "k");
    check_slot_of("SET {tag}k v EX 10", "tag");
    check_slot_of("MGET a b c", "a");
    check_slot_of("EVAL script 2 a b x", "a");
    check_slot_of("EVALSHA sha 1 a", "a");
    check_slot_of("FCALL f 1 a", "a");
    check_slot_of("BLPOP a b 0", "a");
    check_slot_of("BLMPOP 0 2 a b LEFT", "a");
    check_slot_of("XREAD COUNT 2 STREAMS s t 0 0", "s");
    check_slot_of("XREADGROUP GROUP g c STREAMS s >", "s");
    check_slot_of("ZUNION 2 a b", "a");
    check_slot_of("SINTERCARD 2 a b", "a");
    check_slot_of("BITOP AND dest a b", "dest");
    check_slot_of("MIGRATE h 1 k 0 5", "k");
    check_slot_of("OBJECT ENCODING k", "k");
    check_slot_of("XINFO STREAM s", "s");
    check_slot_of("SSCAN k 0", "k");
}

TEST_CASE("placement: what has no key, or is no sound call, may go anywhere") {
    for (const std::string line :
         {"PING", "ECHO k", "TIME", "INFO", "EVAL script 0", "GET", "NOSUCH a", "CONFIG GET *",
          "CLIENT ID", "SUBSCRIBE channel", "PUBLISH channel x", "MULTI", "EXEC"}) {
        CAPTURE(line);
        CHECK(placed(line).where == Where::Anywhere);
    }
}

TEST_CASE("placement: what one server can't answer for the cluster") {
    for (const std::string line :
         {"DBSIZE", "KEYS *", "SCAN 0", "FLUSHALL", "FLUSHDB", "RANDOMKEY", "SCRIPT LOAD s",
          "SCRIPT FLUSH", "SCRIPT EXISTS s", "FUNCTION LOAD f", "WAIT 1 0", "WAITAOF 0 1 0",
          "PUBSUB CHANNELS"}) {
        CAPTURE(line);
        CHECK(placed(line).where == Where::EveryNode);
    }
    CHECK(placed("CLUSTER SLOTS").where == Where::Nowhere);
    CHECK(placed("ASKING").where == Where::Nowhere);
}

}  // namespace
}  // namespace nearkey::placement_test
