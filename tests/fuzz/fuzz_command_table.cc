// The reply to COMMAND -> CommandTable: every command that the server told of is found, whatever
// its case, and none that must stay off a shared connection goes there.
// The bytes are a reply, or, where they are none, they choose one.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/command_rules.h"
#include "nearkey/resp/command_table.h"
#include "nearkey/resp/value.h"

#include <algorithm>
#include <array>
#include <optional>

using nearkey::CommandParser;
using nearkey::CommandRule;
using nearkey::CommandSpec;
using nearkey::CommandTable;
using nearkey::ParseResult;
using nearkey::Route;
using nearkey::Value;
using nearkey::fuzz::Choices;

namespace {

constexpr size_t kNameMax = 64;  // longer names are not found; no command has one

Value text_value(std::string text) {
    Value value;
    value.type = '$';
    value.text = std::move(text);
    return value;
}

std::string choose_name(Choices& choices) {
    const auto rules = nearkey::command_rules();
    switch (choices.below(4)) {
        case 0:
            return choices.text(70);
        case 1: {
            static constexpr std::array<const char*, 8> kNames = {
                "get", "client", "CLIENT|new", "xread", "config", "config|get", "x|", "|"};
            return kNames[choices.below(kNames.size())];
        }
        default:
            return std::string(rules[choices.below(rules.size())].name);
    }
}

Value choose_entry(Choices& choices, int depth) {
    static constexpr std::array<const char*, 6> kFlags = {"readonly", "write",  "module",
                                                          "blocking", "pubsub", "fast"};
    Value entry;
    entry.type = '*';
    entry.elements.resize(choices.below(12));
    if (entry.elements.size() < 3) return entry;
    entry.elements[0] = text_value(choose_name(choices));
    entry.elements[1].type = ':';
    entry.elements[1].integer = static_cast<int64_t>(choices.below(12)) - 6;
    if (entry.elements[1].integer == -6) entry.elements[1].integer = INT64_MIN;
    for (size_t left = choices.below(3); left > 0; --left)
        entry.elements[2].elements.push_back(text_value(kFlags[choices.below(kFlags.size())]));
    if (entry.elements.size() < 10 || depth == 0) return entry;
    for (size_t left = choices.below(4); left > 0; --left)
        entry.elements[9].elements.push_back(choose_entry(choices, depth - 1));
    return entry;
}

Value choose_reply(Choices choices) {
    Value reply;
    reply.type = '*';
    while (!choices.is_used_up())
        reply.elements.push_back(choose_entry(choices, 2));
    return reply;
}

const CommandSpec* find(const CommandTable& table, const std::vector<std::string>& words) {
    std::string request = "*" + std::to_string(words.size()) + "\r\n";
    for (const std::string& word : words)
        request += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
    CommandParser parser(INT64_MAX);
    NEARKEY_CHECK(parser.next(request) == ParseResult::Command);
    return table.find(parser.command());
}

std::string upper(std::string text) {
    for (char& c : text)
        c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    return text;
}

void check_route(const CommandSpec& spec) {
    for (size_t arguments = 0; arguments < 4; ++arguments)
        (void)spec.accepts(arguments);
    const auto rules = nearkey::command_rules();
    const auto rule = std::find_if(rules.begin(), rules.end(),
                                   [&](const CommandRule& each) { return each.name == spec.name; });
    if (rule != rules.end()) {
        NEARKEY_CHECK(spec.route == rule->route);
    } else if (spec.is_module || spec.is_blocking || spec.name.starts_with("client|")) {
        NEARKEY_CHECK(spec.route != Route::Shared || spec.blocks_by_option);
    }
}

void check_entry(const CommandTable& table, const Value& entry) {
    if (entry.elements.size() < 3 || entry.elements[0].text.size() > kNameMax) return;
    const std::string& name = entry.elements[0].text;
    for (const std::string& spelling : {name, upper(name)}) {
        const CommandSpec* spec = find(table, {spelling});
        NEARKEY_CHECK(spec != nullptr);
        NEARKEY_CHECK(nearkey::equals_ignoring_case(spec->name, name));
        NEARKEY_CHECK(spec->name.size() == name.size());
        check_route(*spec);
    }
    if (entry.elements.size() < 10) return;
    for (const Value& child : entry.elements[9].elements) {
        if (child.elements.size() < 3) continue;
        const std::string& child_name = child.elements[0].text;
        const CommandSpec* spec = find(table, {name, child_name.substr(child_name.find('|') + 1)});
        if (spec != nullptr) check_route(*spec);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes = nearkey::fuzz::as_text(data, size);
    const nearkey::fuzz::ExactCopy copy(bytes);
    std::optional<Value> reply = nearkey::parse_value(copy.view());
    if (!reply) reply = choose_reply(Choices(bytes));
    const CommandTable table(*reply);
    NEARKEY_CHECK(table.size() <= reply->elements.size() + 8);
    for (const Value& entry : reply->elements)
        check_entry(table, entry);
    return 0;
}
