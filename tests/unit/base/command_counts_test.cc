// The rows of commands: bounded, found again, and errors by their first word.
#include "nearkey/base/command_counts.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::command_counts_test {
namespace {

std::vector<std::string> names(const CommandCounts& counts) {
    std::vector<std::string> all;
    counts.for_each([&](const CommandCount& row) { all.push_back(row.name()); });
    return all;
}

std::string_view code(std::string_view error) {
    return kErrorCodes[error_code_of(error)];
}

TEST_CASE("command counts: a name has one row, which stays where it is") {
    CommandCounts counts;
    CommandCount& get = counts.of("get");
    ++get.answered;
    for (int i = 0; i < 1000; ++i)
        ++counts.of("c" + std::to_string(i)).forwarded;
    CHECK(&counts.of("get") == &get);
    CHECK(counts.total(&CommandCount::forwarded) == 1000);
    CHECK(counts.total(&CommandCount::answered) == 1);
    CHECK(names(counts).size() == 1002);
}

TEST_CASE("command counts: what was never received is not shown, but for unknown commands") {
    CommandCounts counts;
    static_cast<void>(counts.of("get"));
    CHECK(names(counts) == std::vector<std::string>{"unknown"});
    CHECK(&counts.of("unknown") == &counts.unknown());
}

TEST_CASE("command counts: names that no server has, and too many of them, share a row") {
    CommandCounts counts;
    for (const char* name : {"", "a\"b", "a b", "GET", "a\nb", "\xff"}) {
        CAPTURE(name);
        CHECK(counts.of(name).name() == "other");
    }
    CHECK(counts.of(std::string(65, 'a')).name() == "other");
    for (size_t i = 0; i < 2 * CommandCounts::kNamesMax; ++i)
        ++counts.of("c" + std::to_string(i)).forwarded;
    CHECK(names(counts).size() <= CommandCounts::kNamesMax + 1);
    CHECK(counts.total(&CommandCount::forwarded) == 2 * CommandCounts::kNamesMax);
    CHECK(counts.of("c0").name() == "c0");
}

TEST_CASE("command counts: an error counts by its first word, if a server or nearkey has that") {
    CHECK(code("-WRONGTYPE Operation against a key\r\n") == "WRONGTYPE");
    CHECK(code("ERR unknown command") == "ERR");
    CHECK(code("-NOAUTH\r\n") == "NOAUTH");
    CHECK(code("UPSTREAMLOST the connection") == "UPSTREAMLOST");
    CHECK(code("-UNBLOCKED") == "UNBLOCKED");
    for (const char* error : {"", "-", "-MYERROR of a script\r\n", "-err lower", "-WRONG", "- ERR",
                              "-other x", "-ERRX y"}) {
        CAPTURE(error);
        CHECK(code(error) == "other");
    }
}

TEST_CASE("command counts: a copy has what was counted by then") {
    CommandCounts counts;
    counts.of("get").forwarded = 2;
    counts.of("get").count_error("ERR");
    counts.unknown().count_error("ERR");
    CommandCounts copy(counts);
    ++counts.of("get").forwarded;
    CHECK(copy.of("get").forwarded == 2);
    CHECK(copy.of("get").errors(error_code_of("ERR")) == 1);
    CHECK(copy.unknown().errors(error_code_of("ERR")) == 1);
    copy.add(counts);
    CHECK(copy.of("get").forwarded == 5);
    CHECK(copy.of("get").errors(error_code_of("ERR")) == 2);
}

}  // namespace
}  // namespace nearkey::command_counts_test
