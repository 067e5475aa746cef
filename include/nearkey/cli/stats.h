// The page of `nearkey stats` on how a running nearkey is, for a person, and parts of it.
// It is made of a Snapshot; all other numbers are in /stats and /metrics.
#pragma once

#include "nearkey/cli/snapshot.h"

#include <string>

namespace nearkey {

// REQUIRES: snapshot.is_whole.
std::string stats_page(const Snapshot& snapshot, const std::string& address);

// "ready for 3h 12m", or "not ready for 2 s: Connection refused".
std::string state_text(const Snapshot& snapshot);
// Its address and role, how often another was turned to, and how many Sentinels answer.
std::string server_text(const Snapshot& snapshot);
// "on", or why nothing is stored.
std::string near_cache_state(const Snapshot& snapshot);

}  // namespace nearkey
