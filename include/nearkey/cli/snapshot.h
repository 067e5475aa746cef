// The state of a running nearkey at one moment, for `nearkey stats` and `nearkey top`.
// Taken by a few questions one after the other: the moment is as long as these take.
#pragma once

#include "nearkey/cli/admin_client.h"
#include "nearkey/cli/latency.h"

#include <array>
#include <chrono>
#include <string>

namespace nearkey {

struct LatencyRow {
    const char* what;
    const char* histogram;
    const char* label;
};

// Requests by how they were answered, and where their time went.
inline constexpr std::array<LatencyRow, 6> kLatencyRows = {{
    {"hit", "nearkey_request_duration_seconds", "outcome=\"hit\""},
    {"miss", "nearkey_request_duration_seconds", "outcome=\"miss\""},
    {"forwarded", "nearkey_request_duration_seconds", "outcome=\"forwarded\""},
    {"in Valkey", "nearkey_upstream_duration_seconds", ""},
    {"in nearkey", "nearkey_own_duration_seconds", ""},
    {"turn of the loop", "nearkey_loop_turn_duration_seconds", ""},
}};

// So many nodes of a cluster are asked for: those that are away come first.
inline constexpr uint64_t kNodesShown = 8;

struct Snapshot {
    bool is_whole = false;
    AdminReply failure;  // if it is not: why
    std::chrono::steady_clock::time_point taken;
    nlohmann::ordered_json status;    // /status
    nlohmann::ordered_json stats;     // /stats
    nlohmann::ordered_json hot_keys;  // /hotkeys
    nlohmann::ordered_json nodes;     // /nodes, of a cluster
    std::array<Buckets, kLatencyRows.size()> latency;

    // A number of /stats by its name without "nearkey_".
    double stat(const std::string& name) const {
        return number_of(stats, ("nearkey_" + name).c_str());
    }
};

Snapshot take_snapshot(const AdminTarget& target);

}  // namespace nearkey
