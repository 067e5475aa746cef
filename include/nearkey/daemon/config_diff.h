// What differs between two configurations, for a reload to tell, and to judge.
// Pure; secrets are redacted.
#pragma once

#include "nearkey/daemon/config.h"

#include <string>
#include <vector>

namespace nearkey {

struct ConfigChange {
    std::string key;   // "upstream.url", or "listener ADDRESS near_cache"
    std::string text;  // "key: old -> new"
    bool needs_restart = false;
};

// In the order of the table of options, then of the listeners.
std::vector<ConfigChange> find_changes(const Config& from, const Config& to);

}  // namespace nearkey
