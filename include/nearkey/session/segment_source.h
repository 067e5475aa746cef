// Where a session gets the near cache's shared memory from, to hand it to its client.
// Owned by Daemon; asked by the sessions of every event loop.
#pragma once

#include "nearkey/base/unique_fd.h"

#include <cstdint>
#include <string>

namespace nearkey {

// Shared memory for one client.
struct SegmentGrant {
    UniqueFd descriptor;  // none: `why_not`
    uint64_t incarnation = 0;
    std::string why_not{};
};

class SegmentSource {
public:
    // From now on, if not before, replies are put into it.
    virtual SegmentGrant hand_out() = 0;

protected:
    ~SegmentSource() = default;
};

}  // namespace nearkey
