// The verdicts of a listener's rules (access_rules.h) for one command table.
// Owned by ClientServer, one for each listener, made anew with each table. The one rule: the
// verdict on every command of the table is the one that Valkey gives to a user with these rules
// (ACLSetSelector in acl.c), so AUTH, HELLO, QUIT and RESET are always allowed.
#pragma once

#include "nearkey/resp/access_rules.h"
#include "nearkey/resp/command_table.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nearkey {

class CommandAccess {
public:
    CommandAccess() = default;  // everything is allowed
    CommandAccess(std::vector<AccessRule> rules, const CommandTable& table);

    // REQUIRES: the spec is the command's, and of that table.
    bool allows(const CommandSpec& spec, const CommandView& command) const {
        return allows_any(spec) || (!first_arguments_.empty() && allows_argument(spec, command));
    }
    // True if the command is allowed whatever its arguments.
    bool allows_any(const CommandSpec& spec) const {
        return allows_all_ || (bits_[spec.id / 64U] >> (spec.id % 64U) & 1U) != 0;
    }
    // A client that may not set parameters is not shown the passwords among them.
    bool shows_secrets() const { return shows_secrets_; }
    // A command that the table lacks has no known categories, so the last rule about everything
    // counts, or one that names it. `container`: the command it would be a sub-command of, or null.
    bool allows_unknown(const CommandSpec* container, const CommandView& command) const;

private:
    struct FirstArgument {
        uint16_t id;  // of the command
        std::string argument;
    };

    void set(const CommandSpec& spec, bool is_allowed);
    void apply(const AccessRule& rule, const CommandTable& table);
    bool allows_argument(const CommandSpec& spec, const CommandView& command) const;

    bool allows_all_ = true;
    bool shows_secrets_ = true;
    std::vector<AccessRule> rules_;
    std::vector<uint64_t> bits_;  // by CommandSpec::id
    std::vector<FirstArgument> first_arguments_;
};

// The names in the rules that this server has no command or category for.
std::vector<std::string> find_unknown_names(std::span<const AccessRule> rules,
                                            const CommandTable& table);
// Commands that are refused and yet can be run by an allowed script: the server checks only its own
// user's rights there. Empty if no script can be run.
std::vector<std::string> find_open_to_scripts(const CommandAccess& access,
                                              const CommandTable& table);

}  // namespace nearkey
