// What rules come to for some of Valkey's commands; tests/system/test_command_rules_oracle.py asks
// the server itself about all of them.
#include "nearkey/resp/command_access.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

namespace nearkey::command_access_test {
namespace {

using Words = std::vector<std::string>;

// Of one entry of COMMAND: words with a blank between them.
std::string list(const std::string& text, const std::string& before) {
    std::istringstream words(text);
    std::string listed;
    size_t count = 0;
    for (std::string word; words >> word; ++count)
        listed += "+" + before + word + "\r\n";
    return "*" + std::to_string(count) + "\r\n" + listed;
}

struct Entry {
    std::string name;
    std::string categories;
    std::string flags = "fast";
    std::vector<Entry> children = {};
};

std::string listed(const std::vector<Entry>& entries) {
    std::string text = "*" + std::to_string(entries.size()) + "\r\n";
    for (const Entry& each : entries) {
        text += "*10\r\n+" + each.name + "\r\n:-1\r\n" + list(each.flags, "") +
                ":0\r\n:0\r\n:0\r\n" + list(each.categories, "@") + "*0\r\n*0\r\n" +
                listed(each.children);
    }
    return text;
}

// As Valkey 8.0 has them.
const CommandTable& table() {
    static const CommandTable made(*parse_value(listed({
        {"get", "read string fast"},
        {"set", "write string slow"},
        {"keys", "keyspace read slow dangerous"},
        {"flushall", "keyspace write slow dangerous", "write"},
        {"select", "fast connection"},
        {"ping", "fast connection"},
        {"debug", "admin slow dangerous", "admin noscript"},
        {"shutdown", "admin slow dangerous", "admin noscript"},
        {"eval", "slow scripting", "noscript"},
        {"eval_ro", "slow scripting", "noscript"},
        {"subscribe", "pubsub slow", "noscript"},
        {"auth", "fast connection", "noscript no_auth"},
        {"hello", "fast connection", "noscript no_auth"},
        {"quit", "fast connection", "noscript no_auth"},
        {"reset", "fast connection", "noscript no_auth"},
        {"config",
         "slow",
         "",
         {{"config|get", "admin slow dangerous", "noscript"},
          {"config|set", "admin slow dangerous", "noscript"},
          {"config|rewrite", "admin slow dangerous", "noscript"}}},
        {"cluster", "slow", "", {{"cluster|meet", "admin slow dangerous", "admin"}}},
    })));
    REQUIRE(made.is_complete());
    REQUIRE(made.size() == 20);  // with three of our own
    return made;
}

std::vector<AccessRule> parsed(std::string_view text) {
    std::vector<AccessRule> rules;
    CHECK(parse_access_rules(text, rules) == "");
    return rules;
}

std::string problem(std::string_view text) {
    std::vector<AccessRule> rules;
    return parse_access_rules(text, rules);
}

CommandAccess access_of(std::string_view text) {
    return {parsed(text), table()};
}

bool allows(const CommandAccess& access, const std::string& line) {
    CommandParser parser(1024);
    const std::string input = line + "\r\n";
    REQUIRE(parser.next(input) == ParseResult::Command);
    const CommandView& command = parser.command();
    const CommandSpec* const spec = table().find(command);
    if (spec != nullptr) return access.allows(*spec, command);
    return access.allows_unknown(table().find_name(command[0]), command);
}

bool allows(std::string_view rules, const std::string& line) {
    return allows(access_of(rules), line);
}

TEST_CASE("access rules: words with blanks between, whatever their case") {
    using enum AccessRule::About;
    CHECK(parsed("  +@ALL  -Config|SET -@read +select|0 allcommands nocommands ") ==
          std::vector<AccessRule>{{true, Everything, "all"},
                                  {false, Command, "config|set"},
                                  {false, Category, "read"},
                                  {true, Command, "select|0"},
                                  {true, Everything, "all"},
                                  {false, Everything, "all"}});
}

TEST_CASE("access rules: the word that is none is named") {
    CHECK(problem("") == "it must not be empty; +@all allows everything");
    CHECK(problem("   ") == "it must not be empty; +@all allows everything");
    CHECK(problem("+@all -@dangerus") ==
          "\"-@dangerus\" names no category of commands (ACL CAT lists them)");
    CHECK(problem("+@") == "\"+@\" names no category of commands (ACL CAT lists them)");
    for (const std::string word : {"get", "~*", "&*", "on", ">secret", "(+get)", "@all", "reset"})
        CHECK(problem("+@all " + word) ==
              "\"" + word + "\" is no rule about commands, such as +get, -config|set or +@read");
    for (const std::string word :
         {"+", "-", "+config|", "-|set", "+config|set|x", "+g\tt", "+\xff"})
        CHECK(problem(word) == "\"" + word + "\" names no command");
}

TEST_CASE("access rules: there are at most 1024") {
    std::string text;
    for (int i = 0; i < 1024; ++i)
        text += "+get ";
    CHECK(problem(text) == "");
    CHECK(problem(text + "+get") == "it has more than 1024 rules");
}

TEST_CASE("command access: what is not allowed is refused, and the last word counts") {
    CHECK(allows("+get", "GET k"));
    CHECK_FALSE(allows("+get", "SET k v"));
    CHECK_FALSE(allows("+get -get", "GET k"));
    CHECK(allows("-get +get", "GET k"));
    CHECK(allows("nocommands +@all", "SHUTDOWN"));
    CHECK_FALSE(allows("+@all nocommands", "GET k"));
    CHECK(allows("-@all allcommands", "GET k"));
}

TEST_CASE("command access: categories are the server's") {
    CHECK(allows("+@read", "GET k"));
    CHECK_FALSE(allows("+@read", "SET k v"));
    CHECK_FALSE(allows("+@all -@dangerous", "KEYS *"));
    CHECK(allows("+@all -@dangerous +keys", "KEYS *"));
    CHECK_FALSE(allows("+@all -@admin", "CONFIG SET a b"));
    CHECK(allows("+@all -@admin +config|get", "CONFIG GET a"));
    CHECK_FALSE(allows("+@all -@admin +config|get", "CONFIG SET a b"));
    // One that no command of this server has.
    CHECK_FALSE(allows("+@json", "GET k"));
    CHECK(allows("+@all -@json", "GET k"));
}

TEST_CASE("command access: a command with its sub-commands, or one of them") {
    CHECK_FALSE(allows("+@all -config", "CONFIG GET a"));
    CHECK(allows("+@all -config +config|get", "config get a"));
    CHECK(allows("+@all -config|set", "CONFIG GET a"));
    CHECK_FALSE(allows("+@all -config|set", "CONFIG SET a b"));
    CHECK(allows("+config", "CONFIG REWRITE"));
    CHECK_FALSE(allows("+config|get -config", "CONFIG GET a"));
}

TEST_CASE("command access: a first argument of a command that is refused otherwise") {
    CHECK(allows("+select|0 +get", "SELECT 0"));
    CHECK_FALSE(allows("+select|0 +get", "SELECT 1"));
    CHECK_FALSE(allows("+select|0 +get", "SELECT"));
    CHECK(allows("-select +select|0 +select|7", "SELECT 7"));
    CHECK(allows("+debug|object", "DEBUG OBJECT k"));
    // What was said of the command before is forgotten with the next word about it.
    CHECK_FALSE(allows("+select|0 -select", "SELECT 0"));
    CHECK_FALSE(allows("+select|0 -@connection", "SELECT 0"));
    CHECK_FALSE(allows("+select|0 nocommands", "SELECT 0"));
    CHECK(allows("+@all +select|0", "SELECT 1"));
    // Nothing is refused by one, as in Valkey, which does not know it.
    CHECK(allows("+@all -select|0", "SELECT 0"));
}

TEST_CASE("command access: what Valkey allows everybody is allowed") {
    for (const char* line : {"AUTH x", "HELLO 3", "QUIT", "RESET", "POST /", "Host: x"})
        CHECK_MESSAGE(allows("nocommands", line), line);
    CHECK_FALSE(allows("nocommands", "PING"));
    CHECK_FALSE(allows("nocommands", "NEARKEY STATS"));
    CHECK_FALSE(allows("+@all -@admin", "NEARKEY STATS"));
    CHECK(allows("+nearkey", "NEARKEY STATS"));
}

TEST_CASE(
    "command access: a command that the table lacks goes by its name, or the last general word") {
    CHECK_FALSE(allows("+@read", "NOSUCH x"));
    CHECK(allows("+@all -@dangerous", "NOSUCH x"));
    CHECK_FALSE(allows("+@all -nosuch", "NoSuch x"));
    CHECK(allows("+nosuch", "NOSUCH"));
    CHECK_FALSE(allows("+@all -nosuch|x", "NOSUCH x"));
    CHECK(allows("+@all -nosuch|x", "NOSUCH y"));
    CHECK(allows("+@all -nosuch|x", "NOSUCH"));
    // A sub-command of a command that is known has the rights of that one.
    CHECK(allows("+@all -config|set", "CONFIG NOSUCH"));
    CHECK_FALSE(allows("+@all -config", "CONFIG NOSUCH"));
    CHECK_FALSE(allows("+@all -config|nosuch", "CONFIG NOSUCH"));
}

TEST_CASE("command access: without a table and without rules") {
    const CommandAccess everything;
    const CommandTable none;
    CommandParser parser(1024);
    REQUIRE(parser.next("NOSUCH x\r\n") == ParseResult::Command);
    CHECK(everything.allows_unknown(nullptr, parser.command()));
    CHECK(everything.allows_any(*table().find_name("shutdown")));
    CHECK(CommandAccess(parsed("+@all -x"), none).allows_unknown(nullptr, parser.command()));
    CHECK_FALSE(CommandAccess(parsed("+@read"), none).allows_unknown(nullptr, parser.command()));
}

TEST_CASE("command access: a sub-command that a server says to have others is one all the same") {
    const CommandTable odd(*parse_value(
        listed({{"get", "read"}, {"x", "slow", "", {{"x|y", "slow", "", {{"x|y|z", "slow"}}}}}})));
    const CommandAccess access(parsed("+@all -x"), odd);
    CHECK(access.allows_any(*odd.find_name("get")));
    CHECK_FALSE(access.allows_any(*odd.find_name("x")));
    CHECK_FALSE(access.allows_any(odd.find_name("x")->subcommands[0]));
}

TEST_CASE("command access: the default refuses what hurts everybody, and no more") {
    const CommandAccess access = access_of(kDefaultCommands);
    for (const char* line :
         {"SHUTDOWN",         "SHUTDOWN NOSAVE",  "DEBUG SLEEP 1",   "SAVE",
          "REPLICAOF NO ONE", "SLAVEOF a 1",      "FAILOVER",        "SYNC",
          "PSYNC ? -1",       "REPLCONF a b",     "CONFIG SET a b",  "CONFIG REWRITE",
          "CONFIG RESETSTAT", "ACL SETUSER a",    "ACL DELUSER a",   "ACL LOAD",
          "ACL SAVE",         "MODULE LOAD a",    "MODULE LOADEX a", "MODULE UNLOAD a",
          "CLUSTER MEET a 1", "CLUSTER FAILOVER", "CLUSTER RESET",   "CLUSTER SETSLOT 1 STABLE",
          "CLIENT KILL ID 1", "CLIENT PAUSE 1",   "CLIENT UNPAUSE",  "MIGRATE a 1 k 0 1",
          "ACL LIST",         "ACL GETUSER a",    "ACL LOG"})
        CHECK_FALSE_MESSAGE(allows(access, line), line);
    for (const char* line :
         {"GET k",         "SET k v",       "FLUSHALL",         "KEYS *",        "CONFIG GET *",
          "CLIENT LIST",   "INFO",          "CLIENT UNBLOCK 1", "ACL WHOAMI",    "ACL USERS",
          "ACL CAT",       "CLUSTER INFO",  "CLUSTER SLOTS",    "MODULE LIST",   "SWAPDB 0 1",
          "BGSAVE",        "BGREWRITEAOF",  "LASTSAVE",         "MONITOR",       "SLOWLOG RESET",
          "LATENCY RESET", "SCRIPT FLUSH",  "FUNCTION FLUSH",   "EVAL x 0",      "WAIT 0 1",
          "DUMP k",        "RESTORE k 0 x", "SUBSCRIBE a",      "NEARKEY STATS", "NOSUCH"})
        CHECK_MESSAGE(allows(access, line), line);
}

TEST_CASE("command access: names that the server does not know are found") {
    CHECK(find_unknown_names(parsed("+@all -@json -nosuch -config|nosuch -select|0 +select|0 "
                                    "-get -@read +nearkey +config|get"),
                             table()) == Words{"@json", "nosuch", "config|nosuch", "select|0"});
}

TEST_CASE("command access: what a script could run all the same is found") {
    const auto open = [](std::string_view rules) {
        Words names = find_open_to_scripts(access_of(rules), table());
        std::sort(names.begin(), names.end());
        return names;
    };
    CHECK(open("+@all").empty());
    CHECK(open("+@all -flushall -keys") == Words{"flushall", "keys"});
    CHECK(open("+@all -flushall -keys -@scripting").empty());
    CHECK(open("+@all -flushall -keys -@scripting +eval_ro") == Words{"keys"});
    CHECK(open("+@all -subscribe -nearkey").empty());  // No script can.
    // Of the default, only what works in a cluster alone.
    for (const std::string& name : open(kDefaultCommands))
        CHECK_MESSAGE(name.starts_with("cluster|"), name);
}

}  // namespace
}  // namespace nearkey::command_access_test
