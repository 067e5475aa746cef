#include "nearkey/resp/command_rules.h"

#include <algorithm>

namespace nearkey {

namespace {

using enum Route;
using S = Special;

// clang-format off
constexpr CommandRule kCommandRules[] = {
    // Session state that nearkey keeps itself, so that a shared connection never sees it.
    {"hello",               Local, S::Hello,         "protocol and name belong to the session"},
    {"select",              Local, S::Select,        "the database belongs to the session"},
    {"quit",                Local, S::Quit,          "would close a shared connection"},
    {"reset",               Local, S::Reset,         "would reset a shared connection"},
    {"client|setname",      Local, S::ClientSetName, "the name belongs to the session"},
    {"client|getname",      Local, S::ClientGetName, "the name belongs to the session"},
    {"client|setinfo",      Local, S::ClientSetInfo, "library info belongs to the session"},
    {"nearkey",             Local, S::Nearkey,       "tells of nearkey itself"},

    // A transaction belongs to its connection. One that arrives whole travels as one piece over a
    // shared connection; EXEC, DISCARD and UNWATCH without one are harmless there.
    {"multi",               Transaction, S::Multi,   "opens a transaction on its connection"},
    {"exec",                Transaction, S::Exec,    "ends the connection's transaction"},
    {"discard",             Transaction, S::Discard, "ends the connection's transaction"},
    {"watch",               Transaction, S::Watch,   "watches keys for its connection"},
    {"unwatch",             Transaction, S::Unwatch, "forgets what its connection watches"},

    // A script may run for long: while it does, its connection reads nothing, not even the
    // SCRIPT KILL of another client.
    {"eval",                Dedicated, S::Script, "a long script stalls its connection"},
    {"evalsha",             Dedicated, S::Script, "a long script stalls its connection"},
    {"eval_ro",             Dedicated, S::Script, "a long script stalls its connection"},
    {"evalsha_ro",          Dedicated, S::Script, "a long script stalls its connection"},
    {"fcall",               Dedicated, S::Script, "a long function stalls its connection"},
    {"fcall_ro",            Dedicated, S::Script, "a long function stalls its connection"},
    // Errors of these repeat a client's words as they are: with a line end among them, the rest of
    // the error would be the next client's reply. tests/system/test_forged_replies.py looks for
    // them among all commands.
    {"function|list",       Dedicated, S::Script, "its error may be more than one reply"},
    {"function|load",       Dedicated, S::Script, "its error may be more than one reply"},
    {"function|restore",    Dedicated, S::Script, "its error may be more than one reply"},
    {"script|load",         Dedicated, S::Script, "its error may be more than one reply"},
    {"wait",                Dedicated, S::Wait, "waits, for the connection's own writes"},
    {"waitaof",             Dedicated, S::Wait, "waits, for the connection's own writes"},
    {"config|get",          Dedicated, S::ConfigGet, "passwords are left out of its reply"},
    {"debug",               Unproven,  S::None, "may change how the server treats a connection"},

    // Commands that change the connection itself, or tell of it.
    {"subscribe",           Tunnel, S::None, "turns the connection into a subscriber"},
    {"psubscribe",          Tunnel, S::None, "turns the connection into a subscriber"},
    {"ssubscribe",          Tunnel, S::None, "turns the connection into a subscriber"},
    {"unsubscribe",         Tunnel, S::None, "is answered by as many replies as channels"},
    {"punsubscribe",        Tunnel, S::None, "is answered by as many replies as patterns"},
    {"sunsubscribe",        Tunnel, S::None, "is answered by as many replies as channels"},
    {"monitor",             Tunnel, S::Monitor, "turns the connection into a monitor"},
    {"auth",                Tunnel, S::None, "changes the connection's user"},
    {"readonly",            Tunnel, S::None, "changes the connection"},
    {"readwrite",           Tunnel, S::None, "changes the connection"},
    {"asking",              Tunnel, S::None, "marks the connection's next command"},
    {"script|debug",        Tunnel, S::None, "changes the connection"},
    {"sync",                Tunnel, S::Sync, "turns the connection into a replica"},
    {"psync",               Tunnel, S::Sync, "turns the connection into a replica"},
    {"replconf",            Tunnel, S::None, "turns the connection into a replica"},
    {"client|caching",      Tunnel, S::None, "marks the connection's next command"},
    {"client|capa",         Tunnel, S::None, "changes the connection"},
    {"client|getredir",     Tunnel, S::None, "tells of the connection itself"},
    {"client|id",           Tunnel, S::None, "tells of the connection itself"},
    {"client|import-source", Tunnel, S::None, "changes the connection"},
    {"client|info",         Tunnel, S::None, "tells of the connection itself"},
    {"client|no-evict",     Tunnel, S::None, "changes the connection"},
    {"client|no-touch",     Tunnel, S::None, "changes the connection"},
    {"client|reply",        Tunnel, S::None, "silences the connection"},
    {"client|tracking",     Tunnel, S::None, "changes the connection"},
    {"client|trackinginfo", Tunnel, S::None, "tells of the connection itself"},

    // The other CLIENT sub-commands change or tell of their connection, as far as we know.
    {"client|help",         Shared, S::None, "needs no state"},
    {"client|kill",         Shared, S::None, "needs no state"},
    {"client|list",         Shared, S::None, "needs no state"},
    {"client|pause",        Shared, S::None, "needs no state"},
    {"client|unblock",      Shared, S::None, "needs no state"},
    {"client|unpause",      Dedicated, S::None, "must not stand behind a command that is paused"},

    // Cross-protocol attacks; Valkey knows these names too.
    {"host:",               Close, S::None, "an HTTP request"},
    {"post",                Close, S::None, "an HTTP request"},
};
// clang-format on

}  // namespace

std::span<const CommandRule> command_rules() {
    return kCommandRules;
}

void apply_rules(CommandSpec& spec) {
    const auto rules = command_rules();
    const auto rule = std::find_if(rules.begin(), rules.end(), [&](const CommandRule& candidate) {
        return candidate.name == spec.name;
    });
    if (rule != rules.end()) {
        spec.route = rule->route;
        spec.special = rule->special;
        spec.reason = rule->reason;
        return;
    }
    if (spec.name == "xread" || spec.name == "xreadgroup") {
        spec.blocks_by_option = true;
        spec.reason = "waits only where it is asked to (BLOCK)";
    } else if (spec.name == "client" || spec.name.starts_with("client|")) {
        spec.route = Route::Unproven;
        spec.reason = "may change its connection";
    } else if (spec.is_module && !spec.is_readonly && !spec.is_write) {
        spec.route = Route::Unproven;
        spec.reason = "a module's command that is not about keys may change its connection";
    } else if (spec.is_module) {
        spec.route = Route::Dedicated;
        spec.reason = "a module's command may wait";
    } else if (spec.is_blocking) {
        spec.route = Route::Dedicated;
        spec.reason = "may wait for other clients";
    }
}

}  // namespace nearkey
