// Memory that a burst has left behind: it is resident, and nobody has it in use. It is freed memory
// that malloc keeps, and queues with room for as much as there was once.
// Owned by Daemon, looked at once a second. What has been spare for five looks is to be given back:
// a load that comes in waves would only ask for it again. What could not be given back then is
// tried again later and later, unless more of it becomes spare.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nearkey {

struct MemoryFigures {
    uint64_t resident;   // anonymous pages
    uint64_t accounted;  // what the parts say that they hold
};

class SpareMemory {
public:
    // Whether there is enough of it, for long enough. Then the caller gives it back, and says with
    // settle() what is left.
    [[nodiscard]] bool is_due(const MemoryFigures& figures);
    void settle(const MemoryFigures& figures);

    static constexpr int kLooksMin = 5;
    static constexpr int kLooksMax = 640;
    // Of less it is not worth the page faults of whoever needs it next.
    static constexpr uint64_t kBytesMin = uint64_t{4} << 20;
    static constexpr uint64_t kShareMin = 16;  // a 16th of what is resident

private:
    // What nobody accounts for: the least that there ever was, and the least since the last time.
    uint64_t needed_ = UINT64_MAX;
    uint64_t left_ = UINT64_MAX;
    int looks_ = 0;  // since when there is enough of it
    int looks_wanted_ = kLooksMin;
};

// Of this process, from /proc/self/statm. 0: it can't be read.
uint64_t resident_bytes();

}  // namespace nearkey
