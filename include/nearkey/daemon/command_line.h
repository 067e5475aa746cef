// The command line of nearkey: arguments in, one plain Invocation out. It runs nothing.
// --help, --version and mistakes print their text and leave `exit_code` set; then main returns it
// and does nothing else.
#pragma once

#include <iosfwd>
#include <optional>
#include <span>
#include <string>

#include "nearkey/base/exit_code.h"
#include "nearkey/cli/ask.h"
#include "nearkey/daemon/config.h"

namespace nearkey {

struct Invocation {
    enum class Verb { Serve, Check, Ask, None };

    Verb verb = Verb::None;
    ConfigSources sources;      // Serve and Check.
    bool comments = false;      // Check: print what each option means, too.
    AskFunction ask = nullptr;  // Ask: runs the verb, never null.
    AskOptions ask_options;
    std::optional<int> exit_code;  // Set: everything is said, return it.
};

// `arguments` as main has them, the program's name first.
Invocation parse_command_line(std::span<const char* const> arguments,
                              const Environment& environment, std::ostream& out, std::ostream& err);

// `nearkey check`: loads the configuration as serve would, and prints it instead of serving. It
// opens no socket and starts nothing; its output is TOML that nearkey reads again. Returns the exit
// code: kExitOk with the configuration on `out`, or kExitMistaken with one line on `err`.
int run_check(const Invocation& invocation, std::ostream& out, std::ostream& err);

}  // namespace nearkey
