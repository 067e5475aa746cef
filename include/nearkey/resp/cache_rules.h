// The commands whose replies may be stored: a positive list, for a command that only reads may have
// a reply that changes without a write of its key (TTL, OBJECT, SRANDMEMBER, SCAN, XPENDING ...).
#pragma once

#include "nearkey/resp/access_rules.h"
#include "nearkey/resp/command_table.h"

#include <span>
#include <string>
#include <string_view>

namespace nearkey {

struct CacheRule {
    std::string_view name;
    std::string_view reason;
    CacheSplit split = CacheSplit::None;
};

// Sets the scope of `spec`, and whether its replies may be stored. Called once for each spec, after
// apply_rules(). `specs_known`: COMMAND told of all its keys.
void apply_cache_rules(CommandSpec& spec, bool specs_known);

// A command of the list, or SELECT or NEARKEY, that these rules may refuse, whatever the server's
// categories are; "" if there is none.
std::string find_refused_read(std::span<const AccessRule> rules);

}  // namespace nearkey
