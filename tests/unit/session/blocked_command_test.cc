// A blocking command that is kept, for the time that is left.
#include "nearkey/session/blocked_command.h"

#include "../upstream/fake_valkey.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::blocked_command_test {
namespace {

struct Parsed {
    explicit Parsed(std::string text) : bytes(std::move(text)) {
        REQUIRE(parser.next(bytes) == ParseResult::Command);
    }
    std::string bytes;
    CommandParser parser{int64_t{1} << 30};
};

std::string name_of(const std::string& line) {
    std::string name = line.substr(0, line.find(' '));
    for (char& c : name)
        c = static_cast<char>(std::tolower(c));
    return name;
}

bool keeps(BlockedCommand& command, const std::string& line) {
    return command.keep(name_of(line), Parsed(encoded(line)).parser.command(), 1000);
}

TEST_CASE("blocked command: each is sent again for the time that is left") {
    struct Row {
        std::string line;
        std::string left;  // 1,200 ms later
    };
    const std::vector<Row> rows{
        {"BLPOP a b 5", "BLPOP a b 3.800"},
        {"brpop a 2.5", "brpop a 1.300"},
        {"BLMOVE a b LEFT RIGHT 10", "BLMOVE a b LEFT RIGHT 8.800"},
        {"BRPOPLPUSH a b 1.2", "BRPOPLPUSH a b 0.001"},
        {"BLMPOP 7 2 a b LEFT COUNT 3", "BLMPOP 5.800 2 a b LEFT COUNT 3"},
        {"BZPOPMIN z 1.5", "BZPOPMIN z 0.300"},
        {"BZPOPMAX z 1e1", "BZPOPMAX z 8.800"},
        {"BZMPOP 2 1 z MIN", "BZMPOP 0.800 1 z MIN"},
        {"XREAD COUNT 1 BLOCK 5000 STREAMS s $", "XREAD COUNT 1 BLOCK 3800 STREAMS s $"},
        {"XREAD BLOCK 9 block 2000 STREAMS s 0", "XREAD BLOCK 9 block 800 STREAMS s 0"},
        {"XREAD BLOCK 2000 STREAMS BLOCK 1", "XREAD BLOCK 800 STREAMS BLOCK 1"},
        {"XREADGROUP GROUP BLOCK 1 BLOCK 2000 STREAMS s >",
         "XREADGROUP GROUP BLOCK 1 BLOCK 800 STREAMS s >"},
        {"BLPOP a 0", "BLPOP a 0"},
        {"BLPOP a 0.0", "BLPOP a 0.0"},
        {"XREAD BLOCK 0 STREAMS s 0", "XREAD BLOCK 0 STREAMS s 0"},
        {"BLPOP a 1", "BLPOP a 0.001"},
        {"BLPOP a 0.0001", "BLPOP a 0.001"},
        {"XREAD BLOCK 1 STREAMS s 0", "XREAD BLOCK 1 STREAMS s 0"},
    };
    for (const Row& row : rows) {
        CAPTURE(row.line);
        BlockedCommand command;
        REQUIRE(keeps(command, row.line));
        CHECK(command.bytes() == encoded(row.line));
        CHECK(command.bytes_from(2200) == encoded(row.left));
    }
}

TEST_CASE("blocked command: one whose time can't be read, or that waits for no keys, is not kept") {
    for (const std::string line :
         {"BLPOP a x", "BLPOP a -1", "BLPOP a inf", "BLPOP a nan", "BLPOP a 1e99", "BLPOP a ''",
          "BLPOP a '1 '", "BLMPOP x 1 a LEFT", "XREAD BLOCK x STREAMS s 0", "XREAD STREAMS s 0",
          "XREAD BLOCK 1.5 STREAMS s 0", "XREAD BLOCK -1 STREAMS s 0", "XREAD COUNT BLOCK",
          "WAIT 1 0", "WAITAOF 1 0 0", "BLPOP"}) {
        CAPTURE(line);
        BlockedCommand command;
        CHECK_FALSE(keeps(command, line));
    }
}

TEST_CASE("blocked command: a long one is not kept, and what was kept is given back") {
    BlockedCommand command;
    const size_t around = encoded("BLPOP " + std::string(60'000, 'k') + " 0").size() - 60'000;
    const size_t most = BlockedCommand::kBytesMax - around;
    CHECK(keeps(command, "BLPOP " + std::string(most, 'k') + " 0"));
    CHECK(command.memory_bytes() >= most);
    command.forget();
    CHECK(command.memory_bytes() < 2048);
    CHECK_FALSE(keeps(command, "BLPOP " + std::string(most + 1, 'k') + " 0"));
}

TEST_CASE("blocked command: one that came as a line is sent as Valkey's clients send it") {
    BlockedCommand command;
    REQUIRE(command.keep("blpop", Parsed("BLPOP 'a b' 5\r\n").parser.command(), 1000));
    CHECK(command.bytes_from(1000) == encoded("BLPOP 'a b' 5.000"));
}

}  // namespace
}  // namespace nearkey::blocked_command_test
