#include "nearkey/cli/snapshot.h"

#include <utility>

namespace nearkey {

namespace {

constexpr const char* kHotKeys = "/hotkeys?count=20";

// False, and the snapshot says why.
bool ask_page(const AdminTarget& target, const char* path, const char* sign, Snapshot& snapshot,
              nlohmann::ordered_json& page) {
    AdminReply reply = ask_admin(target, {"GET", path}, sign);
    if (!reply.is_good()) {
        snapshot.failure = std::move(reply);
        return false;
    }
    page = std::move(reply.page);
    return true;
}

bool ask_nodes(const AdminTarget& target, Snapshot& snapshot) {
    if (!snapshot.status.contains("cluster")) return true;
    const std::string path = "/nodes?limit=" + std::to_string(kNodesShown);
    return ask_page(target, path.c_str(), "nodes", snapshot, snapshot.nodes);
}

bool ask_latency(const AdminTarget& target, Snapshot& snapshot) {
    const HttpOutcome outcome = ask_http(target.address, {"GET", "/metrics"}, target.timeout_ms);
    if (outcome.kind != HttpOutcome::Kind::Answered || outcome.answer.status != 200) {
        snapshot.failure.problem = problem_of(outcome, target.address);
        return false;
    }
    for (size_t i = 0; i < kLatencyRows.size(); ++i) {
        const LatencyRow& row = kLatencyRows[i];
        snapshot.latency[i] = Buckets::of_metrics(outcome.answer.body, row.histogram, row.label);
    }
    return true;
}

}  // namespace

Snapshot take_snapshot(const AdminTarget& target) {
    Snapshot snapshot;
    snapshot.is_whole = ask_page(target, "/status", "uptime_seconds", snapshot, snapshot.status) &&
                        ask_page(target, "/stats", "nearkey_ready", snapshot, snapshot.stats) &&
                        ask_page(target, kHotKeys, "hits", snapshot, snapshot.hot_keys) &&
                        ask_nodes(target, snapshot) && ask_latency(target, snapshot);
    snapshot.taken = std::chrono::steady_clock::now();
    return snapshot;
}

}  // namespace nearkey
