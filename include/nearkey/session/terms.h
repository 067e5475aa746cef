// The terms that a listener grants its clients: the same to each of them.
// Owned by ClientServer, outlives the sessions.
#pragma once

#include "nearkey/coherence/client_state.h"
#include "nearkey/resp/command_access.h"
#include "nearkey/session/limits.h"
#include "nearkey/upstream/url.h"

#include <cstdint>

namespace nearkey {

// The answer to a command that Valkey does not answer, since it is away, lost or silent: an error,
// or, as without nearkey, the end of the client's connection.
enum class WhenDown : uint8_t { Error, Close };

// What the upstream looks like: one server, or a cluster whose one node is the listener.
enum class Face : uint8_t { Standalone, Cluster };

struct ClientTerms {
    ClientLimits limits;
    int database = 0;  // in which its clients begin
    CacheUse cache_use = CacheUse::On;
    bool shared_memory = false;  // its clients may read the segment, and feed it
    WhenDown when_down = WhenDown::Error;
    Face face = Face::Standalone;
    bool reads_replicas = false;  // of a cluster, where the near cache stores no reply
    Endpoint announced{};         // with Face::Cluster: where its clients reach it
    CommandAccess access{};       // for the command table as it is now
};

}  // namespace nearkey
