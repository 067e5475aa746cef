#include "nearkey/base/wall_clock.h"

#include <cstdio>
#include <ctime>

namespace nearkey {

int64_t wall_clock_ms() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

std::string utc_text(int64_t wall_ms) {
    const time_t seconds = static_cast<time_t>(wall_ms / 1000);
    tm parts{};
    gmtime_r(&seconds, &parts);
    char text[48];
    const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    std::snprintf(text + length, sizeof text - length, ".%03dZ", static_cast<int>(wall_ms % 1000));
    return text;
}

}  // namespace nearkey
