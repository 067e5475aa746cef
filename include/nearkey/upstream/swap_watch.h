// Finds whether a SWAPDB has run since Valkey was asked last, by the counts of INFO commandstats.
// Valkey tells nobody of SWAPDB, but counts it. CONFIG RESETSTAT sets all counts back, so that a
// count may return to what it was: a reset that is seen counts as a SWAPDB, and is seen by
//   - its own entry, which it leaves with one call: each reset replaces it, with another duration;
//   - the calls of INFO: we have asked once more since, so a count that has not grown was set back.
// A reset goes unseen only if it took as many microseconds as the one before it, and others have
// sent INFO as often since as was counted before.
// Pure: replies in, verdicts out. Owned by ServerStats.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class SwapWatch {
public:
    enum class Verdict : uint8_t {
        Unchanged,  // nothing was swapped since the reply before
        Swapped,    // something was, or may have been: the counts were reset
        Resumed,    // the first reply after forget(): what was swapped meanwhile is not known
    };
    // `info` is the reply to INFO commandstats.
    [[nodiscard]] Verdict note(std::string_view info);
    // The counts to come may be another server's.
    void forget();
    // True if the next reply will tell of every SWAPDB from now on.
    bool is_counting() const { return is_counting_; }

private:
    bool is_counting_ = false;
    bool has_forgotten_ = false;
    bool counts_questions_ = false;  // the server counts calls of INFO
    uint64_t swaps_ = 0;             // calls of SWAPDB
    uint64_t questions_ = 0;         // calls of INFO
    std::string reset_;              // the entry of CONFIG RESETSTAT; empty: there is none
};

}  // namespace nearkey
