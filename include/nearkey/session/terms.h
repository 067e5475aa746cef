// What a listener grants its clients: the same to each of them.
// Owned by ClientServer, outlives the sessions.
#pragma once

#include "nearkey/resp/command_access.h"
#include "nearkey/session/limits.h"

#include <cstdint>

namespace nearkey {

// Whether a client's reads may be answered from the near cache.
enum class CacheUse : uint8_t { On, Off };

struct ClientTerms {
    ClientLimits limits;
    int database = 0;  // in which its clients begin
    CacheUse cache_use = CacheUse::On;
    CommandAccess access{};  // for the command table as it is now
};

}  // namespace nearkey
