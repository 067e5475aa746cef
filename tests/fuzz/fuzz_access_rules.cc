// The text of command rules -> a verdict on every command of a table: as if each rule were looked
// at for each command, from left to right. What is no rule is said, and nothing comes of it.
// The bytes choose a table and rules about it, or are the text as it is.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/access_rules.h"
#include "nearkey/resp/command_access.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/command_table.h"
#include "nearkey/resp/value.h"

#include <array>
#include <optional>

using nearkey::AccessRule;
using nearkey::CommandAccess;
using nearkey::CommandParser;
using nearkey::CommandSpec;
using nearkey::CommandTable;
using nearkey::ParseResult;
using nearkey::Value;
using nearkey::fuzz::Choices;

namespace {

constexpr std::array<const char*, 4> kNames = {"get", "config", "select", "x"};
constexpr std::array<const char*, 3> kChildren = {"get", "set", "0"};
constexpr std::array<const char*, 4> kCategories = {"read", "write", "admin", "fast"};
constexpr size_t kWordsMax = 40;

Value text_value(std::string text) {
    Value value;
    value.type = '+';
    value.text = std::move(text);
    return value;
}

Value choose_entry(Choices& choices, const std::string& name) {
    Value entry;
    entry.type = '*';
    entry.elements.resize(10);
    entry.elements[0] = text_value(name);
    entry.elements[1].integer = -1;
    if (choices.below(6) == 0) entry.elements[2].elements.push_back(text_value("no_auth"));
    const size_t categories = choices.below(16);
    for (size_t i = 0; i < kCategories.size(); ++i) {
        if ((categories >> i & 1U) == 0) continue;
        entry.elements[6].elements.push_back(text_value(std::string("@") + kCategories[i]));
    }
    return entry;
}

CommandTable choose_table(Choices& choices) {
    Value reply;
    reply.type = '*';
    for (const char* name : kNames) {
        Value& entry = reply.elements.emplace_back(choose_entry(choices, name));
        for (size_t left = choices.below(kChildren.size() + 1); left > 0; --left) {
            entry.elements[9].elements.push_back(
                choose_entry(choices, std::string(name) + "|" + kChildren[left - 1]));
        }
    }
    return CommandTable(reply);
}

std::string choose_rules(Choices& choices) {
    static constexpr std::array<const char*, 4> kGeneral = {"+@all", "-@all", "allcommands",
                                                            "nocommands"};
    std::string text;
    for (size_t words = 0; !choices.is_used_up() && words < kWordsMax; ++words) {
        const size_t kind = choices.below(8);
        if (kind == 0) {
            text += kGeneral[choices.below(kGeneral.size())];
        } else {
            text += choices.below(2) == 0 ? "+" : "-";
            const size_t which = choices.below(12);
            text += kind < 4 ? std::string("@") + kCategories[which % kCategories.size()]
                             : kNames[which % kNames.size()];
            if (kind > 5) text += std::string("|") + kChildren[which % kChildren.size()];
        }
        text += ' ';
    }
    return text;
}

// By every rule in turn, for this command with this first argument.
bool is_allowed(const std::vector<AccessRule>& rules, const CommandTable& table,
                const CommandSpec& spec, const CommandSpec* parent, const std::string& argument) {
    if (spec.needs_no_auth || (parent != nullptr && parent->needs_no_auth)) return true;
    bool result = false;
    bool by_argument = false;
    for (const AccessRule& rule : rules) {
        const uint64_t bit = table.category_bit(rule.name);
        const bool is_of_category = rule.about == AccessRule::About::Category &&
                                    ((spec.categories & bit) != 0 ||
                                     (parent != nullptr && (parent->categories & bit) != 0));
        const bool is_named =
            rule.about == AccessRule::About::Command &&
            (rule.name == spec.name || (parent != nullptr && rule.name == parent->name));
        if (rule.about == AccessRule::About::Everything || is_of_category || is_named) {
            result = rule.allows;
            by_argument = false;
        } else if (rule.allows && parent == nullptr && spec.subcommands.empty()) {
            by_argument |=
                rule.about == AccessRule::About::Command && rule.name == spec.name + "|" + argument;
        }
    }
    return result || by_argument;
}

void check_verdicts(const std::vector<AccessRule>& rules, const CommandTable& table) {
    const CommandAccess access(rules, table);
    for (const CommandSpec& spec : table.specs()) {
        for (const std::string argument : {"get", "set", "0", "other"}) {
            const std::string line = spec.name + " " + argument + "\r\n";
            CommandParser parser(INT64_MAX);
            NEARKEY_CHECK(parser.next(line) == ParseResult::Command);
            const CommandSpec* const called = table.find(parser.command());
            if (called == nullptr) {
                (void)access.allows_unknown(&spec, parser.command());
                continue;
            }
            const CommandSpec* const parent = called == &spec ? nullptr : &spec;
            NEARKEY_CHECK(access.allows(*called, parser.command()) ==
                          is_allowed(rules, table, *called, parent, argument));
        }
    }
    for (const std::string& name : find_unknown_names(rules, table))
        NEARKEY_CHECK(!name.empty());
    for (const std::string& name : find_open_to_scripts(access, table))
        NEARKEY_CHECK(!name.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const nearkey::fuzz::ExactCopy copy(nearkey::fuzz::as_text(data, size));
    Choices choices(copy.view());
    const CommandTable table = choose_table(choices);
    for (const std::string& text : {std::string(copy.view()), choose_rules(choices)}) {
        std::vector<AccessRule> rules;
        if (!nearkey::parse_access_rules(text, rules).empty()) continue;
        NEARKEY_CHECK(!rules.empty());
        check_verdicts(rules, table);
    }
    return 0;
}
