// Our own word on commands: a row where the server's COMMAND can't tell where a command must go.
// The one rule: what can change or silence a connection never reaches one that others share.
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

// Applies the rule for `spec.name`, or what its flags ask for. Called once for each spec.
void apply_rules(CommandSpec& spec);

}  // namespace nearkey
