// The time of day, for people and for other programs: logs, pages, metrics. Nothing is timed by it,
// for it jumps.
#pragma once

#include <cstdint>
#include <string>

namespace nearkey {

// Milliseconds since 1970.
int64_t wall_clock_ms();
// A text like "2026-01-31T23:59:59.123Z".
std::string utc_text(int64_t wall_ms);

}  // namespace nearkey
