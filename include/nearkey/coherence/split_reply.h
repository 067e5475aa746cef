// Splits the reply to a command with several keys into the replies for each key alone. Made for one
// reply, whose parts are asked for in order: it is walked once.
#pragma once

#include "nearkey/resp/command_table.h"

#include <cstddef>
#include <string_view>

namespace nearkey {

class SplitReply {
public:
    // Whole, and outlives this; empty: it has no parts.
    explicit SplitReply(std::string_view reply) : rest_(reply) {}

    // Empty: the part can't be told. A view into the reply, or static. REQUIRES: `index` grows from
    // call to call, `count` stays.
    std::string_view part(CacheSplit split, size_t index, size_t count);

private:
    std::string_view value(size_t index, size_t count);
    std::string_view existence(size_t count) const;

    std::string_view rest_;  // from the next part on
    size_t next_ = 0;        // its index
    bool is_open_ = false;   // the header has been read
};

}  // namespace nearkey
