// What a listener grants its clients: the same to each of them.
// Owned by ClientServer, outlives the sessions.
#pragma once

#include "nearkey/resp/command_access.h"
#include "nearkey/session/limits.h"

#include <cstdint>

namespace nearkey {

// Whether a client's reads may be answered from the near cache.
enum class CacheUse : uint8_t { On, Off };

// What a client sees of a command that Valkey does not answer, since it is away, lost or silent: an
// error, or, as without us, the end of its connection.
enum class WhenDown : uint8_t { Error, Close };

struct ClientTerms {
    ClientLimits limits;
    int database = 0;  // in which its clients begin
    CacheUse cache_use = CacheUse::On;
    WhenDown when_down = WhenDown::Error;
    CommandAccess access{};  // for the command table as it is now
};

}  // namespace nearkey
