// The command line of nearkey: arguments in, one plain Invocation out. It runs nothing.
// --help, --version and mistakes print what they have to say and leave `exit_code` set; then main
// returns it and does nothing else.
#pragma once

#include <iosfwd>
#include <optional>
#include <span>
#include <string>

#include "nearkey/daemon/config.h"

namespace nearkey {

// The exit codes of every verb; `nearkey --help` explains them.
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;    // serve: stopped by an error. ready: not ready.
constexpr int kExitMistaken = 2;  // Wrong command line or configuration. ready: nobody answers.

struct Invocation {
    enum class Verb { Serve, Check, Ready, None };

    Verb verb = Verb::None;
    ConfigSources sources;  // Serve and Check.
    bool comments = false;  // Check: print what each option means, too.
    // Ready: where to ask; never empty, and valid.
    ListenAddress admin;
    int timeout_ms = 1000;
    std::optional<int> exit_code;  // Set: everything is said, return it.
};

// `arguments` as main has them, the program's name first.
Invocation parse_command_line(std::span<const char* const> arguments,
                              const Environment& environment, std::ostream& out, std::ostream& err);

}  // namespace nearkey
