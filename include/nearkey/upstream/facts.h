// What the admin pages say of one connection to Valkey: a copy, made when somebody asks.
// The counters in it cost the connection an addition each; the rest is looked up on the spot.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

struct ConnectionFacts {
    std::string_view kind;   // "shared", "dedicated", "idle", "tunnel" or "receiver"
    std::string_view state;  // "idle", "connecting", "handshaking", "ready" or "closed"
    int protocol = 0;
    int database = 0;
    std::string address;      // empty: a Unix socket
    int64_t server_id = 0;    // its CLIENT ID, while it is ready
    uint64_t ready_ms = 0;    // since when, on the loop's clock; 0: it is not
    uint64_t proven_ms = 0;   // when its last heartbeat was sent that was answered, on boot_ms()
    uint64_t sessions = 0;    // that are pinned to it
    uint64_t in_flight = 0;   // requests, tombstones among them
    uint64_t tombstones = 0;  // whose replies will be dropped
    uint64_t waiting = 0;     // for it to be ready
    uint64_t bytes_sent = 0;  // since it was made
    uint64_t bytes_received = 0;
    bool is_tracked = false;  // Valkey tells of changes to what is read over it
};

struct ConnectionList {
    std::vector<ConnectionFacts> connections;
    uint64_t total = 0;
};

}  // namespace nearkey
