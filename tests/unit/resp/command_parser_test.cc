#include "nearkey/resp/command_parser.h"

#include <doctest/doctest.h>

#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using nearkey::CommandParser;
using nearkey::ParseResult;

namespace {

constexpr int64_t kBulkMax = 512 << 20;

struct Parsed {
    std::vector<std::vector<std::string>> commands;
    std::string error;
    bool all_canonical = true;
};

// Feeds `input` in two parts, cut at `cut`, as a session does.
Parsed parse_in_two(const std::string& input, size_t cut) {
    Parsed parsed;
    CommandParser parser(kBulkMax);
    std::string buffer;
    for (const std::string& part : {input.substr(0, cut), input.substr(cut)}) {
        buffer += part;
        while (!buffer.empty() && parsed.error.empty()) {
            const ParseResult result = parser.next(buffer);
            if (result == ParseResult::Incomplete) break;
            if (result == ParseResult::Invalid) {
                parsed.error = parser.error();
                break;
            }
            if (result == ParseResult::Command) {
                auto& command = parsed.commands.emplace_back();
                for (size_t i = 0; i < parser.command().size(); ++i) {
                    command.emplace_back(parser.command()[i]);
                }
                parsed.all_canonical &= parser.command().is_canonical();
            }
            buffer.erase(0, parser.consumed());
        }
    }
    return parsed;
}

// What the parser says of the first command in `input`. With `header`, so many bytes of it are
// shown first.
std::string first_of(const std::string& input, size_t header, int64_t bulk_max) {
    CommandParser parser(bulk_max);
    if (header > 0) static_cast<void>(parser.next(input.substr(0, header)));
    const ParseResult result = parser.next(input);
    std::string said = std::to_string(static_cast<int>(result));
    if (result == ParseResult::Invalid) return said + ' ' + parser.error();
    if (result == ParseResult::Incomplete) return said;
    said += ' ' + std::to_string(parser.consumed());
    if (result == ParseResult::Empty) return said;
    const nearkey::CommandView& command = parser.command();
    said += command.is_canonical() ? " canonical" : " other";
    said += ' ' + std::to_string(command.raw().size());
    for (size_t i = 0; i < command.size(); ++i)
        said += '|' + std::string(command[i]);
    return said;
}

std::string error_of(const std::string& input) {
    return parse_in_two(input, 0).error;
}

}  // namespace

TEST_CASE("parser: commands cut at every byte are the same commands") {
    const std::string input =
        "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\n\r\nset k \"a b\"\r\n*1\r\n$0\r\n\r\nPING\n*-1\r\n";
    const std::vector<std::vector<std::string>> expected{
        {"GET", "k"}, {"set", "k", "a b"}, {""}, {"PING"}};
    for (size_t cut = 0; cut <= input.size(); ++cut) {
        CAPTURE(cut);
        const Parsed parsed = parse_in_two(input, cut);
        CHECK(parsed.commands == expected);
        CHECK(parsed.error.empty());
    }
}

TEST_CASE("parser: what is read in one go is read as any other") {
    std::minstd_rand random(20261129);
    const auto draw = [&](size_t below) { return random() % below; };
    constexpr size_t kLengths[] = {0, 1, 2, 8, 9, 10, 11, 98, 99, 100, 101, 998, 999, 1000, 1001};
    constexpr std::string_view kBytes{"\r\n$*0123456789-+ x\0", 20};
    for (int round = 0; round < 20'000; ++round) {
        const std::string header = '*' + std::to_string(1 + draw(12)) + "\r\n";
        std::string input = header;
        for (size_t left = std::stoul(header.substr(1)); left > 0; --left) {
            const std::string argument(kLengths[draw(std::size(kLengths))], 'v');
            input += '$' + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
        }
        // One byte of it, likely of a length or a line end, is another one.
        const size_t at = header.size() + draw(input.size() - header.size());
        const size_t mark = input.find_first_of("\r\n$", at);
        if (draw(2) == 0 && mark != std::string::npos) input[mark] = kBytes[draw(kBytes.size())];
        if (draw(4) == 0) input.resize(header.size() + draw(input.size() - header.size()));
        if (draw(4) == 0) input += "*1\r\n$4\r\nPING\r\n";
        const int64_t bulk_max = draw(4) == 0 ? 99 : kBulkMax;
        CAPTURE(input);
        REQUIRE(first_of(input, 0, bulk_max) == first_of(input, header.size(), bulk_max));
    }
}

TEST_CASE("parser: malformed input gets Valkey's own words (faults 28, 29, 31, 32)") {
    CHECK(error_of("*1\r\n$-5\r\n") == "ERR Protocol error: invalid bulk length");
    CHECK(error_of("*1\r\n$04\r\nPING\r\n") == "ERR Protocol error: invalid bulk length");
    CHECK(error_of("*1\r\n$536870913\r\n") == "ERR Protocol error: invalid bulk length");
    CHECK(error_of("*3x\r\n") == "ERR Protocol error: invalid multibulk length");
    CHECK(error_of("*+1\r\n") == "ERR Protocol error: invalid multibulk length");
    CHECK(error_of("*2147483648\r\n") == "ERR Protocol error: invalid multibulk length");
    CHECK(error_of("*1\r\n*1\r\n") == "ERR Protocol error: expected '$', got '*'");
    CHECK(error_of("*1\r\n:1\r\n") == "ERR Protocol error: expected '$', got ':'");
    CHECK(error_of("*1\r\n\r\n\r\n") == "ERR Protocol error: expected '$', got ' '");
    CHECK(error_of("get \"k\r\n") == "ERR Protocol error: unbalanced quotes in request");
    CHECK(error_of(std::string(70000, 'x')) == "ERR Protocol error: too big inline request");
    CHECK(error_of("*" + std::string(70000, '1')) ==
          "ERR Protocol error: too big mbulk count string");
    CHECK(error_of("*1\r\n$" + std::string(70000, '1')) ==
          "ERR Protocol error: too big bulk count string");
}

TEST_CASE("parser: what comes before an error is still run") {
    const Parsed parsed = parse_in_two("*1\r\n$4\r\nPING\r\n*1\r\n$-5\r\n", 3);
    CHECK(parsed.commands == std::vector<std::vector<std::string>>{{"PING"}});
    CHECK(parsed.error == "ERR Protocol error: invalid bulk length");
}

TEST_CASE("parser: a declared length allocates nothing and waits (fault 30)") {
    CommandParser parser(kBulkMax);
    CHECK(parser.next("*1048577\r\n") == ParseResult::Incomplete);
    CommandParser other(kBulkMax);
    CHECK(other.next("*1\r\n$536870912\r\n") == ParseResult::Incomplete);
}

TEST_CASE("parser: odd line ends are accepted but not canonical (fault 34)") {
    const Parsed odd = parse_in_two("*1\r\n$4\r\nPINGxx", 0);
    CHECK(odd.commands == std::vector<std::vector<std::string>>{{"PING"}});
    CHECK_FALSE(odd.all_canonical);
    CHECK_FALSE(parse_in_two("*1\rx$4\r\nPING\r\n", 0).all_canonical);
    CHECK_FALSE(parse_in_two("PING\r\n", 0).all_canonical);
    CHECK(parse_in_two("*1\r\n$4\r\nPING\r\n", 0).all_canonical);
}

TEST_CASE("parser: encoding a command anew is canonical") {
    CommandParser parser(kBulkMax);
    REQUIRE(parser.next("set 'a b' \"\\x00\\n\" \"\"\n") == ParseResult::Command);
    std::string encoded;
    nearkey::encode_command(parser.command(), encoded);
    CHECK(encoded == std::string("*4\r\n$3\r\nset\r\n$3\r\na b\r\n$2\r\n\0\n\r\n$0\r\n\r\n", 36));
}

TEST_CASE("parser: after a line of blanks Valkey takes any request as inline (fault 27)") {
    const Parsed parsed = parse_in_two("  \r\n*1\r\n*1\r\n$4\r\nPING\r\n", 0);
    CHECK(parsed.commands == std::vector<std::vector<std::string>>{{"*1"}, {"PING"}});
    CommandParser parser(kBulkMax);
    REQUIRE(parser.next("  \r\n") == ParseResult::Empty);
    REQUIRE(parser.next("*1\r\n") == ParseResult::Command);
    parser.restart();
    CHECK(parser.next("*1\r\n") == ParseResult::Command);

    // Also one that is all there, whenever it is read once more.
    const std::string whole = "*1\r\n$4\r\nPING\r\n";
    CHECK(parse_in_two("  \r\n" + whole, 0).commands ==
          std::vector<std::vector<std::string>>{{"*1"}, {"$4"}, {"PING"}});
    REQUIRE(parser.next("  \r\n") == ParseResult::Empty);
    for (int i = 0; i < 2; ++i) {
        REQUIRE(parser.next(whole) == ParseResult::Command);
        CHECK(parser.command().size() == 1);
        CHECK(parser.command()[0] == "*1");
        parser.restart();
    }
}

TEST_CASE("parser: a stream that begins has no line of blanks before it") {
    const std::string whole = "*1\r\n$4\r\nPING\r\n";
    CommandParser parser(kBulkMax);
    // Once behind the blanks themselves, and once behind the request that they made inline.
    for (const bool is_later : {false, true}) {
        REQUIRE(parser.next("  \r\n") == ParseResult::Empty);
        if (is_later) REQUIRE(parser.next("*1\r\n") == ParseResult::Command);
        parser.begin_stream();
        REQUIRE(parser.next(whole) == ParseResult::Command);
        CHECK(parser.command()[0] == "PING");
        CHECK(parser.consumed() == whole.size());
    }
}

TEST_CASE("parser: room for many arguments is given back with the next command") {
    CommandParser parser(kBulkMax);
    std::string many = "*1000\r\n";
    for (int i = 0; i < 1000; ++i)
        many += "$1\r\nx\r\n";
    REQUIRE(parser.next(many) == ParseResult::Command);
    const size_t before = parser.memory_bytes();
    REQUIRE(parser.next("*1\r\n$4\r\nPING\r\n") == ParseResult::Command);
    CHECK(parser.memory_bytes() < before / 10);
}

TEST_CASE("parser: restart reads the same command once more") {
    CommandParser parser(kBulkMax);
    const std::string input = "*1\r\n$4\r\nPING\r\n";
    REQUIRE(parser.next(input) == ParseResult::Command);
    parser.restart();
    REQUIRE(parser.next(input) == ParseResult::Command);
    CHECK(parser.consumed() == input.size());
}

TEST_CASE("parser: the counterpart of invalid input has the same error and holds no command") {
    const std::string endless(70'000, '1');
    const std::string inputs[] = {
        endless,        "*" + endless,          "*1\r\n$" + endless, "set k \"v\r\n",
        "*x\r\n",       "*9999999999\r\n",      "*1\r\n:1\r\n",      "*1\r\n\r\n\r\n",
        "*1\r\n$x\r\n", "*1\r\n$600000000\r\n", "*1\r\n\n\r\n",
    };
    for (const std::string& input : inputs) {
        CommandParser parser(kBulkMax);
        std::string rest = input;
        while (parser.next(rest) != ParseResult::Invalid)
            rest.erase(0, parser.consumed());
        const std::string counterpart = parser.counterpart();
        const Parsed parsed = parse_in_two(counterpart, counterpart.size() / 2);
        CHECK(parsed.error == parser.error());
        CHECK(parsed.commands.empty());
    }
}
