// The slow requests of late, and where their time went.
// Owned by Daemon, used by all event loops. A ring of bounded size: the newest entry takes the
// place of the oldest. The one rule: no argument of a command gets in, only its name, and its first
// key's hash.
#pragma once

#include "nearkey/session/key_hash.h"
#include "nearkey/session/traffic_options.h"

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>

namespace nearkey {

class Log;
struct Metrics;

struct SlowEntry {
    enum class Route : uint8_t { Shared, Dedicated };

    uint64_t id = 0;        // counts up from 1
    int64_t time_ms = 0;    // of its completion, since 1970
    uint64_t session = 0;   // with `request`, its name in warnings
    uint32_t request = 0;   // the number of the command in its session, from 0
    std::string tag;        // the client's own word for it (NEARKEY TAG); empty: none
    std::string command;    // "get", "client|list"; empty: unknown to the server
    uint64_t key_hash = 0;  // of its first key; 0: it has none
    Route route = Route::Shared;
    bool has_failed = false;  // an error of our own took the place of the reply
    // Microseconds until it could be sent; until its reply was complete; until the client had it.
    uint32_t queue_us = 0;
    uint32_t upstream_us = 0;
    uint32_t write_us = 0;
    uint32_t total_us = 0;
};

std::string_view name_of(SlowEntry::Route route);

class SlowLog {
public:
    // All outlive it.
    SlowLog(const SlowLogOptions& options, const KeyHash& key_hash, Log& log, Metrics& metrics);

    // UINT32_MAX: nothing is slow.
    uint32_t threshold_us() const;
    // Gives it its id and time.
    void add(SlowEntry entry);

    // The oldest first.
    std::deque<SlowEntry> entries() const;
    const KeyHash& key_hash() const { return key_hash_; }

private:
    const SlowLogOptions options_;
    const KeyHash& key_hash_;
    Log& log_;
    Metrics& metrics_;
    mutable std::mutex mutex_;  // held for what follows
    std::deque<SlowEntry> entries_;
    uint64_t last_id_ = 0;
};

}  // namespace nearkey
