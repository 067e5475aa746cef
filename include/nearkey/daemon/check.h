// `nearkey check`: loads the configuration as serve would, and prints it instead of serving.
// It opens no socket and starts nothing. Its output is TOML that nearkey reads again.
#pragma once

#include <iosfwd>

#include "nearkey/daemon/command_line.h"

namespace nearkey {

// Returns the exit code: kExitOk with the configuration on `out`, or kExitMistaken with one line
// on `err`.
int run_check(const Invocation& invocation, std::ostream& out, std::ostream& err);

}  // namespace nearkey
