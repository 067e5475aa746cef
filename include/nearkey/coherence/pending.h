// A client's commands in flight that concern the near cache, one record each.
// Owned by Ledger; the records stand in queues in the order of their tickets.
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/resp/command_table.h"

#include <cstdint>
#include <string>

namespace nearkey {

// A read whose reply may be stored.
struct PendingFill {
    static constexpr int64_t kTtlUnknown = INT64_MIN;

    uint32_t ticket;
    NearCache::Ticket fill;
    uint64_t sent_ms;
    int64_t ttl_ms;    // as PTTL has it
    CacheSplit split;  // None: it is stored as a whole
    uint16_t part;     // of a split reply, from 0
    uint16_t parts;    // that a split reply has
    uint16_t node;     // in a cluster, its number
    bool reads_fields;
};

// A key of a read whose reply will not be stored, or all keys that it reads, over the connection
// that is told of changes or over another; or keys that a transaction watches.
struct UnstoredRead {
    enum class What : uint8_t { Key, SharedRead, OtherRead, Watched };

    uint32_t ticket;
    What what;
    uint16_t node;           // in a cluster, its number
    NearCache::KeyMark key;  // of What::Key
};

// A reply that will be stored when a proof has come.
struct LateFill {
    uint32_t proof;  // its number
    NearCache::Ticket fill;
    uint64_t deadline_ms;
    std::string reply;
};

// A write of one key, of all keys, or of keys that Valkey will tell of; or, as
// WriteScope::Nothing, what OwnWrites is to be told when it is over.
struct PendingWrite {
    uint32_t ticket;
    WriteScope scope;
    NearCache::Write write;  // of Keys and Everything
    uint16_t slot = 0;       // of Nothing; it may be OwnWrites::kAnySlot
};

}  // namespace nearkey
