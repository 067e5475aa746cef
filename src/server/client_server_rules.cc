// What the command rules of each listener come to for the server's commands as they are now.
#include "nearkey/server/client_server.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {

constexpr size_t kListedMax = 20;

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (size_t i = 0; i < names.size() && i < kListedMax; ++i)
        text += (text.empty() ? "" : " ") + names[i];
    if (names.size() > kListedMax) {
        text += " and " + std::to_string(names.size() - kListedMax) + " more";
    }
    return text;
}

}  // namespace

void ClientServer::on_commands_changed() {
    for (auto& listener : listeners_)
        apply_rules(*listener);
}

// Says once what in the rules has no effect, or less than one would think.
void ClientServer::apply_rules(Listener& listener) {
    const CommandTable& table = context_.pool.commands();
    listener.terms.access = CommandAccess(listener.rules, table);
    if (std::exchange(listener.is_checked, true)) return;
    std::vector<AccessRule> defaults;
    parse_access_rules(kDefaultCommands, defaults);
    const bool is_default = listener.rules == defaults;
    const std::string unknown = listed(find_unknown_names(listener.rules, table));
    // The default names what only some versions have.
    if (!unknown.empty() && !is_default) {
        log_.warning("rules_without_effect",
                     {{"address", listener.address},
                      {"reason", "this server has no such command or category"},
                      {"names", unknown}});
    }
    std::vector<std::string> open = find_open_to_scripts(listener.terms.access, table);
    if (!context_.pool.is_cluster()) {
        std::erase_if(open, [](const std::string& name) { return name.starts_with("cluster|"); });
    }
    // docs/operations.md says it of the default.
    if (is_default) std::erase(open, "migrate");
    if (open.empty()) return;
    log_.warning("rules_do_not_hold_in_scripts",
                 {{"address", listener.address},
                  {"reason",
                   "a script runs with the rights of the user of upstream.url: refuse "
                   "@scripting as well, or take the rights from that user (ACL SETUSER)"},
                  {"commands", listed(open)}});
}

}  // namespace nearkey
