// State that all sessions share, and the events that a session tells its owner.
// Owned by ClientServer, outlives the sessions.
#pragma once

#include "nearkey/coherence/ledger.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/session/hot_keys.h"
#include "nearkey/session/known_scripts.h"
#include "nearkey/session/limits.h"
#include "nearkey/session/memory_budget.h"
#include "nearkey/session/segment_source.h"
#include "nearkey/session/slow_log.h"
#include "nearkey/session/terms.h"
#include "nearkey/upstream/cluster.h"

#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class Session;

class SessionEvents {
public:
    // The session is over; it is destroyed later, not in this call.
    virtual void on_session_ended(Session& session) = 0;
    // Too much is held (MemoryBudget): all sessions must be paused with pause_for_memory(), until
    // resume_after_memory().
    virtual void on_memory_exceeded() = 0;

protected:
    ~SessionEvents() = default;
};

// Shared by all sessions. Outlives them.
struct SessionContext {
    Loop& loop;
    const LimitOptions& limits;
    Metrics& metrics;
    Log& log;
    Node& node;  // in a cluster the one that knows the commands
    SessionEvents& events;
    std::string encoded;  // scratch: commands encoded anew
    // Scratch: looks ahead in a session's input.
    CommandParser lookahead{static_cast<int64_t>(limits.bulk_max)};
    LedgerContext ledgers{node};
    NearCache::Expected expected{};             // keys of the reads expected last
    std::vector<CommandCount*> whole_counts{};  // scratch: of the commands of a transaction
    // A smaller near cache is in the processor's own caches: nothing need be expected. Equal with
    // 20,000 keys of 100 bytes; less with fewer, much more with more (docs/performance.md).
    size_t expected_from_bytes = size_t{4} << 20;
    Cluster* cluster = nullptr;         // null: the upstream is one server
    HotKeys* hot_keys = nullptr;        // null: nobody looks at them
    SlowLog* slow_log = nullptr;        // the same
    KnownScripts* scripts = nullptr;    // the same
    const MetricsGroup* all = nullptr;  // of all event loops; null: there is one
    SegmentSource* segment = nullptr;   // null: there is no shared memory
    MemoryBudget memory{metrics, limits.memory_max};

    // Gives back memory that scratches have kept for large commands. REQUIRES: no session is
    // running.
    void shrink();
    // The same for a scratch that has become large.
    void shrink_if_large() {
        if (encoded.capacity() > kScratchKept) shrink();
    }
    static constexpr size_t kScratchKept = size_t{1} << 20;
};

}  // namespace nearkey
