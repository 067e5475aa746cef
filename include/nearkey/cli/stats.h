// `nearkey stats`: one page on how a running nearkey is, for a person; with `json` its /stats.
// The page is made of a Snapshot; what it leaves out stands in /stats and /metrics.
#pragma once

#include "nearkey/cli/ask.h"
#include "nearkey/cli/snapshot.h"

#include <string>

namespace nearkey {

int run_stats(const AskOptions& options, std::ostream& out, std::ostream& err);

// REQUIRES: snapshot.is_whole.
std::string stats_page(const Snapshot& snapshot, const std::string& address);

// "ready for 3h 12m", or "not ready for 2 s: Connection refused".
std::string state_text(const Snapshot& snapshot);
// "on", or why nothing is stored.
std::string near_cache_state(const Snapshot& snapshot);

}  // namespace nearkey
