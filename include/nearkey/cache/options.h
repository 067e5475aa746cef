// Options of the near cache with their defaults: the table [near_cache] of the configuration
// (src/daemon/config_table.cc says what each is and what is allowed).
#pragma once

#include "nearkey/cache/glob.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Counts, milliseconds and bytes are all uint64_t, so that one kind of row describes them.
struct NearCacheOptions {
    bool enabled = true;
    uint64_t memory = uint64_t{64} << 20;
    uint64_t value_max = uint64_t{64} << 10;
    uint64_t max_age_ms = 600'000;
    uint64_t max_staleness_ms = 1000;
    uint64_t stale_if_unavailable_ms = 0;
    uint64_t fills_max = 16384;
    std::vector<std::string> keys;  // glob patterns; empty: all
    std::vector<std::string> skip_keys;
    bool thrash_guard = true;
    std::string tracking = "default";   // or "broadcast"
    std::vector<std::string> prefixes;  // of "broadcast"; empty: every key

    // True if there is a near cache: without staleness nothing could be served.
    bool is_on() const { return enabled && max_staleness_ms > 0; }
    // True if `keys` and `skip_keys` let the key be stored.
    bool takes_part(std::string_view key) const {
        const auto is_named_by = [key](const std::vector<std::string>& patterns) {
            return std::any_of(patterns.begin(), patterns.end(), [key](const std::string& pattern) {
                return matches_glob(pattern, key);
            });
        };
        return (keys.empty() || is_named_by(keys)) && !is_named_by(skip_keys);
    }
    bool touch = true;
    uint64_t touch_keys_max = 128;
    double audit_ratio = 0;  // of the hits
    uint64_t shared_memory = uint64_t{16} << 20;
};

}  // namespace nearkey
