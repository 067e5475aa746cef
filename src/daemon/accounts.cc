#include "nearkey/daemon/accounts.h"

#include "nearkey/base/parse_number.h"
#include "nearkey/base/text_of_file.h"

#include <grp.h>
#include <pwd.h>
#include <algorithm>
#include <limits>
#include <optional>
#include <sstream>

namespace nearkey {

namespace {

// The highest is the kernel's word for "none".
constexpr uint32_t kIdMax = std::numeric_limits<uint32_t>::max() - 1;

std::optional<uint32_t> parse_id(const std::string& text) {
    const auto id = parse_number<uint32_t>(text);
    return id && *id <= kIdMax ? id : std::nullopt;
}

std::optional<uint32_t> find_user(const char* name) {
    const passwd* const found = getpwnam(name);
    return found == nullptr ? std::nullopt : std::optional(found->pw_uid);
}

std::optional<uint32_t> find_group(const char* name) {
    const group* const found = getgrnam(name);
    return found == nullptr ? std::nullopt : std::optional(found->gr_gid);
}

uint32_t id_of(const Listener& listener, const std::string& key, const std::string& name) {
    const bool is_group = key.find("group") != std::string::npos;
    std::optional<uint32_t> id = parse_id(name);
    if (!id) id = is_group ? find_group(name.c_str()) : find_user(name.c_str());
    if (id) return *id;
    throw ConfigError("the listener " + to_text(listener.address) + ": " + key + " = \"" + name +
                      "\": this system knows no such " + (is_group ? "group" : "user") +
                      "; correct the name, or create it");
}

}  // namespace

ListenerAccounts resolve_accounts(const Listener& listener) {
    const ListenerOptions& options = listener.options;
    ListenerAccounts accounts;
    if (!options.owner.empty()) accounts.owner = id_of(listener, "owner", options.owner);
    if (!options.group.empty()) accounts.group = id_of(listener, "group", options.group);
    for (const std::string& name : options.allow_users)
        accounts.allow_users.push_back(id_of(listener, "allow_users", name));
    for (const std::string& name : options.allow_groups)
        accounts.allow_groups.push_back(id_of(listener, "allow_groups", name));
    return accounts;
}

// Lines of: the first id here, the first id outside, how many.
bool is_mapped(const std::string& map, uint32_t id) {
    std::istringstream lines(map);
    uint64_t first = 0;
    uint64_t outside = 0;
    uint64_t count = 0;
    while (lines >> first >> outside >> count) {
        if (id >= first && id - first < count) return true;
    }
    return false;
}

void warn_of_hidden_accounts(const std::vector<ClientServer::Door>& doors, Log& log) {
    const std::string users = text_of_file("/proc/self/uid_map");
    const std::string groups = text_of_file("/proc/self/gid_map");
    const auto is_hidden = [](const std::string& map, const std::vector<uint32_t>& ids) {
        return std::any_of(ids.begin(), ids.end(),
                           [&](uint32_t id) { return !map.empty() && !is_mapped(map, id); });
    };
    for (const ClientServer::Door& door : doors) {
        if (!is_hidden(users, door.peers.users) && !is_hidden(groups, door.peers.groups)) continue;
        log.warning("accounts_hidden",
                    {{"address", std::string_view(door.address)},
                     {"reason",
                      "a user or group of allow_users or allow_groups comes as nobody here and is "
                      "turned away; set PrivateUsers=no in a drop-in of the unit"}});
    }
}

}  // namespace nearkey
