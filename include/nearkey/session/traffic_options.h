// What is kept of the requests that pass, for the operator: the tables [slowlog] and [hotkeys] of
// the configuration.
#pragma once

#include <cstdint>

namespace nearkey {

struct SlowLogOptions {
    uint64_t threshold_ms = 10;  // 0: nothing is kept
    uint64_t entries_max = 128;
    bool log = false;  // whether each is logged, too
};

struct HotKeyOptions {
    uint64_t entries_max = 256;  // places in each sketch; what is asked for is far fewer
    bool show_names = false;     // else a key is known by its hash alone
};

}  // namespace nearkey
