// CONFIG GET without the server's passwords. A glob pattern would show them with the rest, so such
// a call is sent with the names of all other parameters that it matches: the reply is the server's
// own, wherever it comes (a transaction, a tunnel).
#pragma once

#include "nearkey/resp/command_parser.h"

#include <span>
#include <string>
#include <string_view>

namespace nearkey {

// True for Valkey's secret parameters, which it does not tell of (SENSITIVE_CONFIG in config.c):
// requirepass, masterauth, primaryauth, tls-key-file-pass, tls-client-key-file-pass. Modules name
// theirs alike.
[[nodiscard]] bool is_secret_parameter(std::string_view name);

enum class ConfigGetSecrets {
    None,     // the call shows none
    LeftOut,  // another call shows all but them
    Unknown,  // a pattern may show one, and its other matches are not known
};
// `parameters` are the names that the server has, or none. LeftOut puts the other call, encoded,
// into `instead`. REQUIRES: `command` is CONFIG GET with at least one pattern.
[[nodiscard]] ConfigGetSecrets leave_out_secrets(const CommandView& command,
                                                 std::span<const std::string> parameters,
                                                 std::string& instead);

}  // namespace nearkey
