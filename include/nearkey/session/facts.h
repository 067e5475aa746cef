// The facts about one client for the admin pages: a copy, made for each request.
// The counters in it cost the session an addition each; the rest is looked up on the spot.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/connection.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace nearkey {

struct ClientFacts {
    static constexpr size_t kNameMax = 256;  // bytes of each name; a longer one is cut

    uint64_t session = 0;
    int fd = -1;  // open until the session is reaped: not after the call that asked
    Protocol protocol = Protocol::Resp2;
    int database = 0;
    ClientIdentity identity;
    std::string_view route;  // "none", "shared", "leased", "transaction", "feeds" or "tunnel"
    uint64_t commands = 0;
    uint64_t shared_hits = 0;  // in shared memory, by its own word
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;
    uint64_t buffered_bytes = 0;
    uint32_t in_flight = 0;
    uint64_t connected_ms = 0;  // on the loop's clock
    uint64_t active_ms = 0;     // when it last sent something
};

// Clients in the order of their sessions' numbers.
struct ClientList {
    std::vector<ClientFacts> clients;
    uint64_t total = 0;  // all connected clients
    uint64_t next = 0;   // the last client's number, to go on from; 0: there are no more
};

}  // namespace nearkey
