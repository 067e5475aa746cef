// Watches how near the process is to the end of its memory: the limit of its cgroup (MemoryMax=) or
// of its address space (ulimit -v, prlimit --as). Past that end an allocation fails, or the kernel
// kills.
// Owned by Daemon. Near it the near cache is emptied first; while that is not enough, new clients
// are refused. Where there is a limit it looks ten times a second; a new limit is seen when the
// owner calls look().
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/cache/near_cache.h"
#include "nearkey/loop/loop.h"

#include <cstdint>
#include <optional>
#include <string>

namespace nearkey {

struct MemoryUse {
    uint64_t used;
    uint64_t limit;

    // True with less than an eighth left, which one turn may need; a quarter is enough again.
    bool is_short() const { return used > limit - limit / 8; }
    bool is_enough() const { return used < limit - limit / 4; }
};

// The folder of our cgroup of version 2, as /proc/self/cgroup names it; empty: there is none.
std::string own_cgroup();
// The nearest of all limits; nothing: there is none. `cgroup` is own_cgroup().
std::optional<MemoryUse> memory_use(const std::string& cgroup);
// A cgroup's use, from its memory.max and memory.stat. Pages of files count for nothing: the kernel
// takes them back.
std::optional<MemoryUse> parse_cgroup(const std::string& max, const std::string& stat);

class MemoryWatch {
public:
    // `cache` may be null.
    MemoryWatch(Loop& loop, Metrics& metrics, Log& log, NearCache* cache);

    void look();

private:
    void shed();

    Metrics& metrics_;
    Log& log_;
    NearCache* cache_;
    const std::string cgroup_;  // systemd moves a service before it starts, and not again
    Timer timer_;
};

}  // namespace nearkey
