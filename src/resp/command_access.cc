#include "nearkey/resp/command_access.h"

#include "nearkey/base/ignoring_case.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace nearkey {

namespace {

// "config|set" -> "config" and "set".
std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
    const size_t bar = name.find('|');
    return {name.substr(0, bar), bar == std::string_view::npos ? "" : name.substr(bar + 1)};
}

const CommandSpec* find_command(const CommandTable& table, std::string_view name) {
    const auto [command, sub] = split_name(name);
    const CommandSpec* const spec = table.find_name(command);
    if (spec == nullptr || sub.empty()) return spec;
    const auto child = std::find_if(spec->subcommands.begin(), spec->subcommands.end(),
                                    [&](const CommandSpec& each) { return each.name == name; });
    return child == spec->subcommands.end() ? nullptr : &*child;
}

// The command whose first argument the rule names, or null. As in Valkey, a command with
// sub-commands has no such rules, and nothing can be refused by them.
const CommandSpec* find_command_of_argument(const CommandTable& table, const AccessRule& rule) {
    const auto [command, argument] = split_name(rule.name);
    if (!rule.allows || argument.empty()) return nullptr;
    const CommandSpec* const spec = table.find_name(command);
    return spec != nullptr && spec->subcommands.empty() ? spec : nullptr;
}

bool is_known(const CommandTable& table, const AccessRule& rule) {
    switch (rule.about) {
        case AccessRule::About::Everything:
            return true;
        case AccessRule::About::Category:
            return table.category_bit(rule.name) != 0;
        case AccessRule::About::Command:
            break;
    }
    return find_command(table, rule.name) != nullptr ||
           find_command_of_argument(table, rule) != nullptr;
}

template <class Visit>
void for_each(const CommandTable& table, Visit visit) {
    for (const CommandSpec& spec : table.specs()) {
        visit(spec);
        for (const CommandSpec& child : spec.subcommands)
            visit(child);
    }
}

}  // namespace

CommandAccess::CommandAccess(std::vector<AccessRule> rules, const CommandTable& table)
    : allows_all_(false), rules_(std::move(rules)), bits_(table.id_count() / 64 + 1) {
    for (const AccessRule& rule : rules_)
        apply(rule, table);
    for_each(table, [this](const CommandSpec& spec) {
        if (spec.needs_no_auth) set(spec, true);
    });
    const AccessRule everything{true, AccessRule::About::Everything, "all"};
    // Then nothing is looked up for a command.
    allows_all_ = !rules_.empty() && rules_.back() == everything;
    const CommandSpec* const config_set = find_command(table, "config|set");
    shows_secrets_ = config_set == nullptr ? allows_all_ : allows_any(*config_set);
}

void CommandAccess::set(const CommandSpec& spec, bool is_allowed) {
    const uint64_t bit = uint64_t{1} << (spec.id % 64U);
    uint64_t& word = bits_[spec.id / 64U];
    word = is_allowed ? word | bit : word & ~bit;
    std::erase_if(first_arguments_, [&](const FirstArgument& each) { return each.id == spec.id; });
    for (const CommandSpec& child : spec.subcommands)
        set(child, is_allowed);
}

void CommandAccess::apply(const AccessRule& rule, const CommandTable& table) {
    switch (rule.about) {
        case AccessRule::About::Everything:
            std::fill(bits_.begin(), bits_.end(), rule.allows ? ~uint64_t{0} : 0);
            first_arguments_.clear();
            return;
        case AccessRule::About::Category: {
            const uint64_t category = table.category_bit(rule.name);
            for_each(table, [&](const CommandSpec& spec) {
                if ((spec.categories & category) != 0) set(spec, rule.allows);
            });
            return;
        }
        case AccessRule::About::Command:
            if (const CommandSpec* const spec = find_command(table, rule.name)) {
                set(*spec, rule.allows);
            } else if (const auto* const owner = find_command_of_argument(table, rule)) {
                first_arguments_.push_back({owner->id, std::string(split_name(rule.name).second)});
            }
            return;
    }
}

bool CommandAccess::allows_argument(const CommandSpec& spec, const CommandView& command) const {
    return command.size() > 1 &&
           std::any_of(
               first_arguments_.begin(), first_arguments_.end(), [&](const FirstArgument& each) {
                   return each.id == spec.id && equals_ignoring_case(each.argument, command[1]);
               });
}

bool CommandAccess::allows_unknown(const CommandSpec* container, const CommandView& command) const {
    if (container != nullptr && !allows_any(*container)) return false;
    bool is_allowed = allows_all_;
    for (const AccessRule& rule : rules_) {
        const auto [name, sub] = split_name(rule.name);
        const bool is_it =
            rule.about == AccessRule::About::Command && equals_ignoring_case(command[0], name) &&
            (sub.empty() || (command.size() > 1 && equals_ignoring_case(command[1], sub)));
        if (rule.about == AccessRule::About::Everything || is_it) is_allowed = rule.allows;
    }
    return is_allowed;
}

std::vector<std::string> find_unknown_names(std::span<const AccessRule> rules,
                                            const CommandTable& table) {
    std::vector<std::string> names;
    for (const AccessRule& rule : rules) {
        if (is_known(table, rule)) continue;
        names.push_back((rule.about == AccessRule::About::Category ? "@" : "") + rule.name);
    }
    return names;
}

std::vector<std::string> find_open_to_scripts(const CommandAccess& access,
                                              const CommandTable& table) {
    const auto allows_one_of = [&](std::initializer_list<std::string_view> commands) {
        return std::any_of(commands.begin(), commands.end(), [&](std::string_view name) {
            const CommandSpec* const spec = table.find_name(name);
            return spec != nullptr && access.allows_any(*spec);
        });
    };
    const bool can_write = allows_one_of({"eval", "evalsha", "fcall"});
    const bool can_read = can_write || allows_one_of({"eval_ro", "evalsha_ro", "fcall_ro"});
    std::vector<std::string> names;
    for_each(table, [&](const CommandSpec& spec) {
        // A command with sub-commands is not run itself; "nearkey" is not the server's.
        const bool is_run = spec.subcommands.empty() && spec.is_servers_own && !spec.is_noscript;
        const bool is_open = spec.is_write ? can_write : can_read;
        if (is_run && is_open && !access.allows_any(spec)) names.push_back(spec.name);
    });
    return names;
}

}  // namespace nearkey
