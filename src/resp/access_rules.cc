#include "nearkey/resp/access_rules.h"

#include "nearkey/base/ignoring_case.h"

#include <algorithm>
#include <array>

namespace nearkey {

namespace {

constexpr size_t kRulesMax = 1024;

// Valkey's own, and those that known modules bring along.
constexpr auto kCategories = std::to_array<std::string_view>(
    {"admin",  "bitmap",      "blocking",    "connection", "dangerous", "fast",
     "geo",    "hash",        "hyperloglog", "keyspace",   "list",      "pubsub",
     "read",   "scripting",   "set",         "slow",       "sortedset", "stream",
     "string", "transaction", "write",       "bloom",      "cms",       "cuckoo",
     "json",   "search",      "tdigest",     "timeseries", "topk"});

// True for a command, or one with its sub-command or first argument behind a bar.
bool is_command_name(std::string_view name) {
    const auto is_graphic = [](char c) { return c > ' ' && c < 127; };
    return !name.empty() && std::count(name.begin(), name.end(), '|') <= 1 &&
           !name.starts_with('|') && !name.ends_with('|') && !name.starts_with('@') &&
           std::all_of(name.begin(), name.end(), is_graphic);
}

// Reads one word as Valkey does (ACLSetSelector in acl.c). Returns what is wrong with it, or "".
std::string parse_rule(const std::string& word, AccessRule& rule) {
    if (word == "allcommands" || word == "nocommands") {
        rule = {word == "allcommands", AccessRule::About::Everything, "all"};
        return "";
    }
    const std::string quoted = "\"" + word + "\"";
    if (!word.starts_with('+') && !word.starts_with('-')) {
        return quoted + " is no rule about commands, such as +get, -config|set or +@read";
    }
    rule.allows = word.starts_with('+');
    if (!word.substr(1).starts_with('@')) {
        rule.about = AccessRule::About::Command;
        rule.name = word.substr(1);
        return is_command_name(rule.name) ? "" : quoted + " names no command";
    }
    rule.name = word.substr(2);
    if (rule.name == "all") return "";
    rule.about = AccessRule::About::Category;
    const bool is_known =
        std::find(kCategories.begin(), kCategories.end(), rule.name) != kCategories.end();
    return is_known ? "" : quoted + " names no category of commands (ACL CAT lists them)";
}

}  // namespace

std::string parse_access_rules(std::string_view text, std::vector<AccessRule>& rules) {
    rules.clear();
    while (!text.empty()) {
        const size_t end = std::min(text.find(' '), text.size());
        std::string word(text.substr(0, end));
        std::transform(word.begin(), word.end(), word.begin(), to_lower);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (word.empty()) continue;
        std::string problem = parse_rule(word, rules.emplace_back());
        if (!problem.empty()) return problem;
        if (rules.size() > kRulesMax) return "it has more than 1024 rules";
    }
    return rules.empty() ? "it must not be empty; +@all allows everything" : "";
}

}  // namespace nearkey
