// The last hour as a running nearkey has kept it (/history), and as lines of sparklines.
// An earlier nearkey has no such page: then there is nothing to show, and nothing fails.
#pragma once

#include "nearkey/cli/admin_client.h"
#include "nearkey/cli/terminal.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace nearkey {

// A character for each value, as high as it is of `top`; a blank where it is not a number. Blocks
// where this locale prints them, else ASCII.
std::string sparkline(const std::vector<double>& values, double top);

// Columns of what a line of nearkey top begins with.
inline constexpr size_t kTopLabel = 12;

class Past {
public:
    // Asks for what came since the last answer, no more often than there is something new.
    void ask(const AdminTarget& target);
    // An answer.
    void add(const nlohmann::ordered_json& page);
    // No lines if there is nothing.
    std::vector<ScreenLine> lines(size_t columns) const;

private:
    static constexpr size_t kColumns = 7;
    using Values = std::array<double, kColumns>;
    struct Moment {
        double time_ms;  // by our clock
        Values values;
    };

    double window_ms(size_t places) const;
    std::vector<Values> merged(size_t places) const;
    void add_events(std::vector<ScreenLine>& lines) const;

    std::deque<Moment> moments_;
    nlohmann::ordered_json page_;  // the last answer
    double now_ms_ = 0;            // when it came
    double next_ = 0;
    std::optional<std::chrono::steady_clock::time_point> asked_;
};

}  // namespace nearkey
