#include "nearkey/resp/reply_scanner.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using nearkey::ReplyScanner;
using nearkey::ScanResult;

namespace {

// Scans `input` in pieces of `piece` bytes: the sizes of the replies, or {} if it is malformed.
std::vector<size_t> reply_sizes(const std::string& input, size_t piece) {
    ReplyScanner scanner;
    std::vector<size_t> sizes;
    size_t size = 0;
    for (size_t start = 0; start < input.size(); start += piece) {
        std::string_view rest = std::string_view(input).substr(start, piece);
        while (!rest.empty()) {
            size_t taken = 0;
            const ScanResult result = scanner.scan(rest, taken);
            if (result == ScanResult::Malformed) return {};
            size += taken;
            rest.remove_prefix(taken);
            if (result == ScanResult::Complete) sizes.push_back(std::exchange(size, 0));
        }
    }
    return sizes;
}

const std::vector<std::string> kReplies{
    "+OK\r\n",
    "-ERR x\r\n",
    "-ERR line\nand line\rend\r\n",
    ":1\r\n",
    "$-1\r\n",
    "*-1\r\n",
    "$0\r\n\r\n",
    "$5\r\nhe\r\no\r\n",
    "*0\r\n",
    "*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
    "_\r\n",
    "#t\r\n",
    ",1.5\r\n",
    "(12345678901234567890\r\n",
    "=7\r\ntxt:abc\r\n",
    "!5\r\nERR x\r\n",
    "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n",
    "~2\r\n:1\r\n:2\r\n",
    ">2\r\n+invalidate\r\n_\r\n",
    "|1\r\n+ttl\r\n:3600\r\n$1\r\nx\r\n",
    "*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
};

}  // namespace

TEST_CASE("scanner: every RESP2 and RESP3 type ends where it ends, cut anywhere") {
    std::string all;
    std::vector<size_t> expected;
    for (const std::string& reply : kReplies) {
        all += reply;
        expected.push_back(reply.size());
    }
    for (size_t piece = 1; piece <= all.size(); ++piece) {
        CAPTURE(piece);
        CHECK(reply_sizes(all, piece) == expected);
    }
}

TEST_CASE("scanner: 400,000 levels and huge counts cost nothing (faults 43, 44)") {
    std::string deep;
    for (int i = 0; i < 400'000; ++i)
        deep += "*1\r\n";
    deep += ":1\r\n";
    CHECK(reply_sizes(deep, 4096) == std::vector<size_t>{deep.size()});
    ReplyScanner scanner;
    size_t taken = 0;
    CHECK(scanner.scan("*888888888\r\n", taken) == ScanResult::Incomplete);
    CHECK(taken == 12);
}

TEST_CASE("scanner: malformed replies are found") {
    for (const std::string input :
         {"x\r\n", "$x\r\n", "*-2\r\n", "$1\n", "%-1\r\n", "$+1\r\n", "*99999999999999999999\r\n",
          "\r\n", ":12x\r\n", ":\r\n", "#x\r\n", "_x\r\n", "$1\r\naXX", "$1\r\na\rX"}) {
        CAPTURE(input);
        CHECK(reply_sizes(input, input.size()).empty());
    }
    CHECK(reply_sizes("*" + std::string(100, '1'), 7).empty());
    CHECK(reply_sizes(std::string("\0\0\r\n", 4), 4).empty());
    CHECK(reply_sizes("$1\r\naXX", 1).empty());
}

TEST_CASE("scanner: whether a reply has a line of text is known, at any depth, cut anywhere") {
    const std::vector<std::pair<std::string, bool>> replies{
        {":1\r\n", false},
        {"+OK\r\n", true},
        {"$3\r\n+OK\r\n", false},
        {"*2\r\n:1\r\n$1\r\na\r\n", false},
        {"*2\r\n:1\r\n-ERR x\r\n", true},
        {"*-1\r\n", false},
        {"%1\r\n$1\r\na\r\n*1\r\n+b\r\n", true},
        {"_\r\n", false},
        {",1.5\r\n", true},
        {"(1\r\n", true},
        {"!5\r\nERR x\r\n", false},
    };
    for (size_t piece = 1; piece < 30; ++piece) {
        ReplyScanner scanner;
        for (const auto& [reply, has_text] : replies) {
            const std::string_view shown = reply;
            CAPTURE(shown);
            for (size_t start = 0; start < reply.size(); start += piece) {
                size_t taken = 0;
                CHECK(scanner.scan(std::string_view(reply).substr(start, piece), taken) !=
                      ScanResult::Malformed);
            }
            CHECK(scanner.has_text() == has_text);
        }
    }
}

TEST_CASE("scanner: the type of the reply tells pushes from answers") {
    ReplyScanner scanner;
    size_t taken = 0;
    CHECK(scanner.scan(">1\r\n+x\r\n", taken) == ScanResult::Complete);
    CHECK(scanner.type() == '>');
    CHECK(scanner.scan("+OK\r\n", taken) == ScanResult::Complete);
    CHECK(scanner.type() == '+');
}
