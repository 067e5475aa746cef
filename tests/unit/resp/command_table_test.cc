#include "nearkey/resp/command_table.h"

#include "nearkey/resp/command_rules.h"

#include <doctest/doctest.h>

#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

using nearkey::CommandParser;
using nearkey::CommandTable;
using nearkey::Route;
using nearkey::Special;

namespace {

// `flags`: words with a blank between them.
std::string entry(const std::string& name, int arity, const std::string& flags,
                  const std::string& subcommands) {
    std::istringstream words(flags);
    std::string flag;
    std::string listed;
    int count = 0;
    for (; words >> flag; ++count)
        listed += "+" + flag + "\r\n";
    return "*10\r\n+" + name + "\r\n:" + std::to_string(arity) + "\r\n*" + std::to_string(count) +
           "\r\n" + listed + ":1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n" + subcommands;
}

CommandTable make_table() {
    const std::string none = "*0\r\n";
    const std::string reply =
        "*8\r\n" + entry("get", 2, "readonly", none) + entry("SET", -3, "write", none) +
        entry("blpop", -3, "blocking", none) + entry("xread", -4, "blocking", none) +
        entry("multi", 1, "fast", none) + entry("mod.cmd", -1, "module", none) +
        entry("mod.get", -1, "module readonly", none) +
        entry("client", -2, "x",
              "*2\r\n" + entry("client|setname", 3, "x", none) +
                  entry("client|unheard-of", 2, "x", none));
    return CommandTable(*nearkey::parse_value(reply));
}

const nearkey::CommandSpec* find(const CommandTable& table, const std::string& line) {
    static CommandParser parser(1024);
    static std::string input;
    input = line + "\r\n";
    REQUIRE(parser.next(input) == nearkey::ParseResult::Command);
    return table.find(parser.command());
}

}  // namespace

TEST_CASE("command table: names are found whatever their case, others are not") {
    const CommandTable table = make_table();
    REQUIRE(find(table, "GeT k") != nullptr);
    CHECK(find(table, "GET k")->is_readonly);
    CHECK(find(table, "set k v")->name == "set");
    CHECK(find(table, "gett k") == nullptr);
    CHECK(find(table, std::string(200, 'x')) == nullptr);
    CHECK(CommandTable().size() == 0);
}

TEST_CASE("command table: routes come from flags and from our rules") {
    const CommandTable table = make_table();
    CHECK(find(table, "get k")->route == Route::Shared);
    CHECK(find(table, "blpop k 0")->route == Route::Dedicated);
    CHECK(find(table, "multi")->route == Route::Transaction);
    CHECK(find(table, "mod.get")->route == Route::Dedicated);
    CHECK(find(table, "mod.cmd")->route == Route::Unproven);
    CHECK(find(table, "post /")->route == Route::Close);
    CHECK(find(table, "client setname x")->special == Special::ClientSetName);
    CHECK(find(table, "CLIENT SETNAME x")->name == "client|setname");
    CHECK(find(table, "client unheard-of")->route == Route::Unproven);
    CHECK(find(table, "client nothing") == nullptr);
}

TEST_CASE("command table: a module's read writes nothing, whatever its keys are said to be") {
    // As Redis 8.0 tells of VSIM, and of PFCOUNT.
    const std::string written =
        "*1\r\n*6\r\n+flags\r\n*3\r\n+RW\r\n+access\r\n+update\r\n+begin_search\r\n"
        "*4\r\n+type\r\n+index\r\n+spec\r\n*2\r\n+index\r\n:1\r\n+find_keys\r\n"
        "*4\r\n+type\r\n+range\r\n+spec\r\n*6\r\n+lastkey\r\n:0\r\n+keystep\r\n:1\r\n"
        "+limit\r\n:0\r\n";
    const auto row = [&](const std::string& name, const std::string& flags) {
        return "*10\r\n+" + name + "\r\n:-2\r\n" + flags + ":1\r\n:1\r\n:1\r\n*0\r\n*0\r\n" +
               written + "*0\r\n";
    };
    const CommandTable table(*nearkey::parse_value("*2\r\n" +
                                                   row("VSIM", "*2\r\n+readonly\r\n+module\r\n") +
                                                   row("pfcount", "*1\r\n+readonly\r\n")));
    CHECK(find(table, "vsim k")->writes == nearkey::WriteScope::Nothing);
    CHECK(find(table, "vsim k")->tells_of_keys);
    CHECK(find(table, "pfcount k")->writes == nearkey::WriteScope::Keys);
}

TEST_CASE("command table: what shows written keys tells of keys, though it reads none") {
    const auto row = [](const std::string& name) {
        return "*10\r\n+" + name + "\r\n:-2\r\n*0\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n*0\r\n*0\r\n";
    };
    const CommandTable table(*nearkey::parse_value("*3\r\n" + row("slowlog|get") +
                                                   row("commandlog|get") + row("commandlog|len")));
    CHECK(table.find_name("slowlog|get")->tells_of_keys);
    CHECK(table.find_name("commandlog|get")->tells_of_keys);
    CHECK_FALSE(table.find_name("commandlog|len")->tells_of_keys);
}

TEST_CASE("command table: arity is the server's") {
    const CommandTable table = make_table();
    CHECK(find(table, "get k")->accepts(2));
    CHECK_FALSE(find(table, "get k")->accepts(3));
    CHECK(find(table, "set k v")->accepts(5));
    CHECK_FALSE(find(table, "set k v")->accepts(2));
}

TEST_CASE("command table: BLOCK is an option only before STREAMS, and not a group's name") {
    CommandParser parser(1024);
    const auto blocks = [&](const std::string& line) {
        REQUIRE(parser.next(line) == nearkey::ParseResult::Command);
        return nearkey::has_block_option(parser.command());
    };
    CHECK(blocks("xread block 0 streams s $\n"));
    CHECK_FALSE(blocks("xread streams block 0\n"));
    CHECK_FALSE(blocks("xreadgroup group block c streams s >\n"));
    CHECK(blocks("xreadgroup group streams c BLOCK 5 streams s >\n"));
}

TEST_CASE("command table: each place of a keyword names a key, where it is known which") {
    nearkey::CommandSpec spec;
    spec.key_specs = {{.keyword = {}, .begin = 1}, {.keyword = "STORE", .begin = 2}};
    CommandParser parser(1024);
    const auto keys_of = [&](const std::string& line) -> std::string {
        REQUIRE(parser.next(line) == nearkey::ParseResult::Command);
        std::vector<std::string_view> keys;
        if (!spec.find_keys(parser.command(), keys)) return "not known";
        std::string text;
        for (const std::string_view key : keys)
            text += std::string(key) + " ";
        return text;
    };
    CHECK(keys_of("geo k STORE a\n") == "not known");
    spec.names_keys = true;
    CHECK(keys_of("geo k\n") == "k ");
    CHECK(keys_of("geo k STORE a\n") == "k a ");
    CHECK(keys_of("geo k store a count 1 Store b\n") == "k a b ");
    CHECK(keys_of("geo k store store b\n") == "k store b ");
    CHECK(keys_of("geo k store\n") == "not known");
    // As many keys as there are ids behind them.
    spec.key_specs = {{.keyword = "STREAMS", .begin = 1, .last = -1, .limit = 2}};
    CHECK(keys_of("x streams a b 0 0\n") == "a b ");
    CHECK(keys_of("x count 1\n").empty());
    CHECK(keys_of("x streams streams a 0 0\n") == "streams a ");
    CHECK(keys_of("x count 1 noack group streams c block 5 Streams streams streams\n") ==
          "streams ");
    CHECK(keys_of("x block streams streams a b streams 0\n") == "a b ");
    // An option that is not known here: there may be another meaning.
    CHECK(keys_of("x claim 5 streams a 0\n") == "a ");
    CHECK(keys_of("x claim streams streams a 0\n") == "not known");
    // Looked for from the end.
    spec.key_specs = {{.keyword = "KEYS", .begin = -2, .last = -1}};
    CHECK(keys_of("x a keys b c\n") == "b c ");
}

TEST_CASE("command rules: each command has one row, in lower case") {
    std::set<std::string_view> names;
    for (const nearkey::CommandRule& rule : nearkey::command_rules()) {
        CAPTURE(rule.name);
        CHECK(names.insert(rule.name).second);
        CHECK_FALSE(rule.reason.empty());
        for (const char c : rule.name)
            CHECK_FALSE((c >= 'A' && c <= 'Z'));
    }
}
