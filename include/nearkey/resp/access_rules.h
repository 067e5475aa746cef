// Rules of which commands may be run, in Valkey's own ACL syntax: "+@all -@dangerous +config|get".
// Their verdicts depend on the server's commands: command_access.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Leaves out commands that change or stop the server for everybody and that no application needs.
// docs/decisions.md has the reasons.
inline constexpr std::string_view kDefaultCommands =
    "+@all -shutdown -debug -save -replicaof -slaveof -failover -sync -psync -replconf "
    "-migrate -config|set -config|rewrite -config|resetstat "
    "-client|kill -client|pause -client|unpause "
    "-acl|setuser -acl|deluser -acl|load -acl|save -acl|list -acl|getuser -acl|log "
    "-module|load -module|loadex -module|unload "
    "-cluster|addslots -cluster|addslotsrange -cluster|bumpepoch -cluster|cancelslotmigrations "
    "-cluster|delslots -cluster|delslotsrange -cluster|failover -cluster|flushslots "
    "-cluster|forget -cluster|meet -cluster|migrateslots -cluster|migration -cluster|replicate "
    "-cluster|reset -cluster|saveconfig -cluster|set-config-epoch -cluster|setslot "
    "-cluster|syncslots";

struct AccessRule {
    enum class About : uint8_t { Everything, Category, Command };

    bool allows = false;
    About about = About::Everything;
    std::string
        name;  // lower case: "admin", "get", "config|set" or, of a first argument, "select|0"

    bool operator==(const AccessRule&) const = default;
};

// Words with blanks between, applied from left to right; nothing is allowed before the first.
// Returns what is wrong with the text, or "".
std::string parse_access_rules(std::string_view text, std::vector<AccessRule>& rules);

}  // namespace nearkey
