// The state that the server would keep for a client of its own.
// Owned by Desk; the ledger and the routes read it.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/connection.h"

#include <cstddef>
#include <cstdint>

namespace nearkey {

// Says whether a client's reads may be answered from the near cache.
enum class CacheUse : uint8_t { On, Off };

struct ClientState {
    Protocol protocol = Protocol::Resp2;
    int database = 0;
    // A SELECT failed on the way: nothing may run until one works.
    bool is_database_unsure = false;
    // WAIT must count the client's writes over any connection.
    bool has_written = false;
    CacheUse cache_use = CacheUse::On;  // NEARKEY CACHE may say otherwise than its listener
    // Its listener's, which a reload may change: readers of shared memory may have what it reads.
    const bool& shares_replies = kSharesNone;
    ClientIdentity identity{};
    size_t identity_bytes = 0;  // memory of its names

    // REQUIRES: called after each change of the identity.
    void count_identity();

    static constexpr bool kSharesNone = false;
};

}  // namespace nearkey
