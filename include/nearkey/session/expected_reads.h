// Looks ahead in a client's input for reads of the near cache, and prefetches the memory that they
// will need.
#pragma once

#include "nearkey/session/desk.h"

#include <string_view>

namespace nearkey {

// The most commands that are looked ahead: their prefetched lines stay in the nearest cache.
inline constexpr size_t kExpectedAtOnce = 32;

// True: `input` is one read of the near cache, which is best run behind the reads of the other
// clients of this turn.
bool expect_lone_read(Desk& desk, std::string_view input);
// The same for reads that came together: the first ones' memory is fetched while the others are
// found.
void expect_batch(Desk& desk, std::string_view input);

}  // namespace nearkey
