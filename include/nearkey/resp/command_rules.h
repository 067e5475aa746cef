// Our own rules for commands: a row where the server's COMMAND can't tell where a command must go.
// The one rule: a command that can change or silence a connection never reaches a shared one.
#pragma once

#include "nearkey/resp/command_table.h"

#include <span>
#include <string_view>

namespace nearkey {

struct CommandRule {
    std::string_view name;
    Route route;
    Special special;
    std::string_view reason;
};

std::span<const CommandRule> command_rules();

// Applies the rule for `spec.name`, or the one that its flags imply. Called once for each spec.
void apply_rules(CommandSpec& spec);

}  // namespace nearkey
