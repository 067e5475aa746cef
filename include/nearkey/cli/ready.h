// `nearkey ready`: asks a running nearkey for /readyz, once, and says in one line what it heard.
// It blocks, has no loop, and never takes longer than its timeout.
#pragma once

#include "nearkey/cli/ask.h"

namespace nearkey {

// Returns the exit code: 0 ready, 1 not ready, 2 nobody answers in time, or not as nearkey does.
// The line goes to `out` whatever it says. REQUIRES: timeout_ms > 0.
int run_ready(const AskOptions& options, std::ostream& out, std::ostream& err);

}  // namespace nearkey
