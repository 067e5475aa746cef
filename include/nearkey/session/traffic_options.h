// Options for the requests that are recorded for the operator: the tables [slowlog] and [hotkeys]
// of the configuration.
#pragma once

#include <cstdint>

namespace nearkey {

struct SlowLogOptions {
    uint64_t threshold_ms = 10;  // 0: nothing is kept
    uint64_t entries_max = 128;
    bool log = false;  // each slow request is logged, too
};

struct HotKeyOptions {
    uint64_t entries_max = 256;  // places in each sketch; far fewer are shown
    bool show_names = false;     // otherwise only a key's hash is shown
};

}  // namespace nearkey
