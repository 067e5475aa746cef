#include "nearkey/resp/command_rules.h"

#include <algorithm>

namespace nearkey {

namespace {

using enum Route;
using L = LocalCommand;

// clang-format off
constexpr CommandRule kRules[] = {
    // Session state that nearkey keeps itself, so that a shared connection never sees it.
    {"hello",               Local, L::Hello,         "protocol and name belong to the session"},
    {"select",              Local, L::Select,        "the database belongs to the session"},
    {"quit",                Local, L::Quit,          "would close a shared connection"},
    {"reset",               Local, L::Reset,         "would reset a shared connection"},
    {"echo",                Local, L::Echo,          "needs no server"},
    {"client|setname",      Local, L::ClientSetName, "the name belongs to the session"},
    {"client|getname",      Local, L::ClientGetName, "the name belongs to the session"},
    {"client|setinfo",      Local, L::ClientSetInfo, "library info belongs to the session"},

    // A script may run for long: while it does, its connection reads nothing, not even the
    // SCRIPT KILL of another client.
    {"eval",                Dedicated, L::None, "a long script stalls its connection"},
    {"evalsha",             Dedicated, L::None, "a long script stalls its connection"},
    {"eval_ro",             Dedicated, L::None, "a long script stalls its connection"},
    {"evalsha_ro",          Dedicated, L::None, "a long script stalls its connection"},
    {"fcall",               Dedicated, L::None, "a long function stalls its connection"},
    {"fcall_ro",            Dedicated, L::None, "a long function stalls its connection"},
    {"debug",               Dedicated, L::None, "changes how the server treats a connection"},

    // State on the server's side of the connection.
    {"multi",               Unsupported, L::None, "opens a transaction"},
    {"exec",                Unsupported, L::None, "ends a transaction"},
    {"discard",             Unsupported, L::None, "ends a transaction"},
    {"watch",               Unsupported, L::None, "watches keys for a transaction"},
    {"unwatch",             Unsupported, L::None, "watches keys for a transaction"},
    {"subscribe",           Unsupported, L::None, "turns the connection into a subscriber"},
    {"psubscribe",          Unsupported, L::None, "turns the connection into a subscriber"},
    {"ssubscribe",          Unsupported, L::None, "turns the connection into a subscriber"},
    {"unsubscribe",         Unsupported, L::None, "belongs to a subscriber"},
    {"punsubscribe",        Unsupported, L::None, "belongs to a subscriber"},
    {"sunsubscribe",        Unsupported, L::None, "belongs to a subscriber"},
    {"monitor",             Unsupported, L::None, "turns the connection into a monitor"},
    {"auth",                Unsupported, L::None, "changes the connection's user"},
    {"readonly",            Unsupported, L::None, "changes the connection"},
    {"readwrite",           Unsupported, L::None, "changes the connection"},
    {"asking",              Unsupported, L::None, "marks the connection's next command"},
    {"wait",                Unsupported, L::None, "counts the connection's own writes"},
    {"waitaof",             Unsupported, L::None, "counts the connection's own writes"},
    {"script|debug",        Unsupported, L::None, "changes the connection"},
    {"sync",                Unsupported, L::None, "turns the connection into a replica"},
    {"psync",               Unsupported, L::None, "turns the connection into a replica"},
    {"replconf",            Unsupported, L::None, "turns the connection into a replica"},
    {"client|caching",      Unsupported, L::None, "marks the connection's next command"},
    {"client|capa",         Unsupported, L::None, "changes the connection"},
    {"client|getredir",     Unsupported, L::None, "tells of the connection itself"},
    {"client|id",           Unsupported, L::None, "tells of the connection itself"},
    {"client|import-source", Unsupported, L::None, "changes the connection"},
    {"client|info",         Unsupported, L::None, "tells of the connection itself"},
    {"client|no-evict",     Unsupported, L::None, "changes the connection"},
    {"client|no-touch",     Unsupported, L::None, "changes the connection"},
    {"client|reply",        Unsupported, L::None, "silences the connection"},
    {"client|tracking",     Unsupported, L::None, "changes the connection"},
    {"client|trackinginfo", Unsupported, L::None, "tells of the connection itself"},

    // The other CLIENT sub-commands change or tell of their connection, as far as we know.
    {"client|help",         Shared, L::None, "needs no state"},
    {"client|kill",         Shared, L::None, "needs no state"},
    {"client|list",         Shared, L::None, "needs no state"},
    {"client|pause",        Shared, L::None, "needs no state"},
    {"client|unblock",      Shared, L::None, "needs no state"},
    {"client|unpause",      Shared, L::None, "needs no state"},

    // Cross-protocol attacks; Valkey knows these names too.
    {"host:",               Close, L::None, "an HTTP request"},
    {"post",                Close, L::None, "an HTTP request"},
};
// clang-format on

}  // namespace

std::span<const CommandRule> command_rules() {
    return kRules;
}

void apply_rules(CommandSpec& spec) {
    const auto rules = command_rules();
    const auto rule = std::find_if(rules.begin(), rules.end(), [&](const CommandRule& candidate) {
        return candidate.name == spec.name;
    });
    if (rule != rules.end()) {
        spec.route = rule->route;
        spec.local = rule->local;
        spec.reason = rule->reason;
        return;
    }
    if (spec.name == "xread" || spec.name == "xreadgroup") {
        spec.blocks_by_option = true;
    } else if (spec.name == "client" || spec.name.starts_with("client|")) {
        spec.route = Route::Unproven;
    } else if (spec.is_blocking || spec.is_module) {
        spec.route = Route::Dedicated;
    }
}

}  // namespace nearkey
