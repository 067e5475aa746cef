// What all sessions share, and what a session tells its owner.
// Owned by ClientServer, outlives the sessions.
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/session/hot_keys.h"
#include "nearkey/session/limits.h"
#include "nearkey/session/memory_budget.h"
#include "nearkey/session/slow_log.h"
#include "nearkey/session/terms.h"
#include "nearkey/upstream/pool.h"

#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class Session;

class SessionEvents {
public:
    // The session is over; it is destroyed later, not in this call.
    virtual void on_session_ended(Session& session) = 0;
    // Too much is held (MemoryBudget): all are to be paused, with pause_for_memory(), until they
    // may go on with resume_after_memory().
    virtual void on_memory_exceeded() = 0;

protected:
    ~SessionEvents() = default;
};

// What all sessions share. Outlives them.
struct SessionContext {
    Loop& loop;
    const LimitOptions& limits;
    Metrics& metrics;
    Log& log;
    ConnectionPool& pool;
    SessionEvents& events;
    std::string encoded;  // scratch: commands encoded anew
    // Scratch: looks ahead in the input of whoever asks.
    CommandParser lookahead{static_cast<int64_t>(limits.bulk_max)};
    NearCache* cache = nullptr;           // null: there is none
    FillWaiterLoop* fill_loop = nullptr;  // null: the cache is this loop's alone
    NearCache::Expected expected{};       // keys of reads that were expected last
    // A smaller near cache is in the processor's own caches: nothing need be expected. Equal with
    // 20,000 keys of 100 bytes; less with fewer, much more with more (docs/performance.md).
    size_t expected_from_bytes = size_t{4} << 20;
    uint64_t boot_ms = 0;                  // Loop::boot_ms() when the input being run had come
    std::vector<std::string_view> keys{};  // scratch: of the command being executed
    std::vector<size_t> missing{};         // scratch: which of a split read's keys are not stored
    WriteScope scope = WriteScope::Keys;   // of those, or more
    std::string arguments{};               // scratch: those of a query
    std::string pttl{};                    // scratch
    HotKeys* hot_keys = nullptr;           // null: nobody looks at them
    SlowLog* slow_log = nullptr;           // the same
    const MetricsGroup* all = nullptr;     // of all event loops; null: there is one
    MemoryBudget memory{metrics, limits.memory_max};

    // Gives back what scratches have kept for commands as large as there were once. REQUIRES: no
    // session is running.
    void shrink();
    // The same of a scratch that has become large.
    void shrink_if_large() {
        if (encoded.capacity() > kScratchKept) shrink();
    }
    static constexpr size_t kScratchKept = size_t{1} << 20;
};

}  // namespace nearkey
