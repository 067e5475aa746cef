// The facts about one connection to Valkey for the admin pages: a copy, made for each request.
// The counters in it cost the connection an addition each; the rest is looked up on the spot.
#pragma once

#include "nearkey/resp/protocol.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

struct ConnectionFacts {
    std::string_view kind;   // "shared", "dedicated", "idle", "tunnel" or "receiver"
    std::string_view state;  // "idle", "connecting", "handshaking", "ready" or "closed"
    Protocol protocol = Protocol::Resp2;
    int database = 0;
    std::string address;      // empty: a Unix socket
    int64_t server_id = 0;    // its CLIENT ID, while it is ready
    uint64_t ready_ms = 0;    // ready since, on the loop's clock; 0: it is not
    uint64_t proven_ms = 0;   // when its last answered heartbeat was sent, on boot_ms()
    uint64_t sessions = 0;    // sessions pinned to it
    uint64_t in_flight = 0;   // requests, tombstones among them
    uint64_t tombstones = 0;  // requests whose replies will be dropped
    uint64_t waiting = 0;     // requests that wait until it is ready
    uint64_t bytes_sent = 0;  // since it was made
    uint64_t bytes_received = 0;
    bool is_tracked = false;  // Valkey tells of changes to what is read over it
};

struct ConnectionList {
    std::vector<ConnectionFacts> connections;
    uint64_t total = 0;
};

// The server that answers at the upstream; empty while none does.
struct ServerFacts {
    std::string address;    // "10.0.0.2:6379", or the path of its socket
    std::string_view role;  // "primary" or "replica", by its last word
};

struct SentinelFacts {
    std::string address;
    bool is_reachable = false;  // and says which server is the primary
    std::string state;          // one line
};

// A node of a cluster, as /nodes shows it.
struct NodeFacts {
    bool is_ready() const { return state == "ready"; }

    std::string id;
    std::string address;
    std::string state;         // "ready", or why not
    double since_seconds = 0;  // how long it has been so
    size_t slots = 0;
    size_t connections = 0;
    size_t in_flight = 0;
    size_t waiting = 0;
    bool is_replica = false;  // that is read from
    // Of a replica: since when it was known to be up to date; nothing: it is not known.
    std::optional<double> lag_seconds{};
};

struct ClusterFacts {
    size_t nodes = 0;           // that own slots
    size_t nodes_away = 0;      // of these, do not serve now
    size_t slots_unserved = 0;  // that nobody owns, or one that does not serve
};

// What a node adds to gauges that are of all nodes.
struct NodeGauges {
    size_t dedicated_idle = 0;
    size_t dedicated_max = 0;
    bool is_tracking = false;
    uint64_t lease_ms = 0;
    bool is_touching = false;
    uint64_t certificate_end_s = 0;  // Unix time; 0: no TLS
};

}  // namespace nearkey
