// The verbs that change a running nearkey: reload, upgrade, log-level and cache-clear.
// reload and upgrade wait for what comes of it, at most their timeout, and tell it.
#pragma once

#include "nearkey/cli/ask.h"

namespace nearkey {

int run_reload(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_upgrade(const AskOptions& options, std::ostream& out, std::ostream& err);
// Without a level: which one it is. REQUIRES: the level is empty or a plain word.
int run_log_level(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_cache_clear(const AskOptions& options, std::ostream& out, std::ostream& err);

}  // namespace nearkey
