#include "nearkey/upstream/own_question.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

namespace nearkey {
namespace {

struct Case {
    OwnCommand command;
    std::vector<std::string_view> answers;
};

// As Valkey gives them in RESP2 and in RESP3.
const std::vector<Case> kCases{
    {OwnCommand::Hello, {"*2\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n", "%1\r\n+a\r\n+b\r\n"}},
    {OwnCommand::Auth, {"+OK\r\n", "+QUEUED\r\n"}},
    {OwnCommand::Tracking, {"+OK\r\n"}},
    {OwnCommand::Caching, {"+OK\r\n"}},
    {OwnCommand::Info,
     {"$8\r\n# Memory\r\n", "=12\r\ntxt:# Memory\r\n", "$0\r\n\r\n", "=4\r\ntxt:\r\n"}},
    {OwnCommand::Command, {"*1\r\n*2\r\n$3\r\nget\r\n:2\r\n", "*0\r\n"}},
    {OwnCommand::Config, {"*0\r\n", "*2\r\n$1\r\na\r\n$0\r\n\r\n", "%0\r\n"}},
    {OwnCommand::Slots, {"*1\r\n*2\r\n:0\r\n:1\r\n", "*0\r\n"}},
    {OwnCommand::Touch, {":0\r\n", ":12\r\n"}},
};
// Of requests of clients.
constexpr std::string_view kOthers[] = {"+value\r\n", "$5\r\nvalue\r\n", "$-1\r\n",
                                        "_\r\n",      ":1\r\n",          ",1.5\r\n",
                                        "#t\r\n",     "(1\r\n",          "*1\r\n:1\r\n",
                                        "*-1\r\n",    "~1\r\n+a\r\n",    "%1\r\n+a\r\n:1\r\n",
                                        "+PONG\r\n",  "$0\r\n\r\n",      "+OK\r\n",
                                        "*0\r\n",     "=5\r\ntxt:a\r\n"};

bool may_be(OwnCommand command, std::string_view other) {
    switch (command) {
        case OwnCommand::Hello:
        case OwnCommand::Config:
            return other[0] == '*' || other[0] == '%';
        case OwnCommand::Auth:
            return other[0] == '+';
        case OwnCommand::Tracking:
        case OwnCommand::Caching:
            return other == "+OK\r\n";
        case OwnCommand::Info:
            return other == "$0\r\n\r\n";
        case OwnCommand::Command:
        case OwnCommand::Slots:
            return other == "*0\r\n";
        case OwnCommand::Touch:
            return other[0] == ':';
    }
    return false;
}

}  // namespace

TEST_CASE("own question: what can be an answer is one, and nothing else") {
    for (const Case& each : kCases) {
        const OwnCommand command = each.command;
        CAPTURE(static_cast<int>(command));
        for (const std::string_view answer : each.answers) {
            CAPTURE(answer);
            CHECK(is_answer(command, answer));
        }
        for (const std::string_view error :
             {"-ERR no\r\n", "-LOADING x\r\n", "!5\r\nERR x\r\n", ""})
            CHECK(is_answer(command, error));
        for (const std::string_view other : kOthers) {
            CAPTURE(other);
            CHECK(is_answer(command, other) == may_be(command, other));
        }
    }
}

}  // namespace nearkey
