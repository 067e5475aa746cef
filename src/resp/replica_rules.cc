#include "nearkey/resp/replica_rules.h"

#include "nearkey/resp/command_table.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace nearkey {

namespace {
// What these tell of, or change, is one server's own. All that begin so, if it ends with '|'.
constexpr std::string_view kOwn[] = {
    "hscan",  // A cursor is good at one server.
    "sscan",   "zscan",
    "touch",              // The replica would note the use, and the primary evict the key.
    "object|",            // The last use, and how it is kept.
    "memory|", "xinfo|",  // The latter: since when a consumer is idle.
};

bool is_own(std::string_view name) {
    return std::any_of(std::begin(kOwn), std::end(kOwn), [name](std::string_view own) {
        return own.ends_with('|') ? name.starts_with(own) : name == own;
    });
}
}  // namespace

void apply_replica_rules(CommandSpec& spec) {
    // PFCOUNT may write what it has counted.
    const bool is_plain_read = spec.is_servers_own && spec.is_readonly &&
                               spec.writes == WriteScope::Nothing && !spec.is_module;
    spec.may_ask_replica = is_plain_read && spec.route == Route::Shared && spec.names_keys &&
                           !spec.key_specs.empty() && !is_own(spec.name);
}

}  // namespace nearkey
