// The patterns of reads that cache_policies.cc replays, as numbers of keys: Zipf, with scans of
// several kinds, and loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace nearkey::bench {

struct Pattern {
    std::string name;
    std::function<std::vector<uint32_t>()> keys;  // made when it is its turn
};

// For a cache of about `entries` entries.
std::vector<Pattern> patterns(size_t entries);

}  // namespace nearkey::bench
