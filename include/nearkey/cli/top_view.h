// The page of `nearkey top`: lines of text made of two snapshots, and how they fit a window.
// Values in, values out; the terminal that draws them is cli/terminal.h.
#pragma once

#include "nearkey/cli/past.h"
#include "nearkey/cli/snapshot.h"
#include "nearkey/cli/terminal.h"

#include <string>
#include <vector>

namespace nearkey {

struct TopFrame {
    const std::string& address;
    const Past& past;
    size_t columns;  // that sparklines may take
};

// Rates are of the time between the two. `before` is null, or of another process: there are none.
// REQUIRES: both are whole.
std::vector<ScreenLine> top_lines(const Snapshot& now, const Snapshot* before,
                                  const TopFrame& frame);
// While there is no answer.
std::vector<ScreenLine> away_lines(const std::string& problem, size_t columns);
// No more lines than the window has, empty ones given up first; none longer than it is wide.
std::vector<ScreenLine> fitted(std::vector<ScreenLine> lines, const ScreenSize& size);

}  // namespace nearkey
