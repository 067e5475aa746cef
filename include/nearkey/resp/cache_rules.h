// Which replies may be kept: a positive list, for a command that only reads is not yet one whose
// reply stays true until its key is written (TTL, OBJECT, SRANDMEMBER, SCAN, XPENDING ...).
#pragma once

#include "nearkey/resp/command_table.h"

#include <string_view>

namespace nearkey {

struct CacheRule {
    std::string_view name;
    std::string_view reason;
    CacheSplit split = CacheSplit::None;
};

// Says what `spec` may change, and whether its replies may be kept. Called once for each spec,
// after apply_rules(). `specs_known`: COMMAND told of all its keys.
void apply_cache_rules(CommandSpec& spec, bool specs_known);

}  // namespace nearkey
