#include "nearkey/cli/stats.h"

#include "nearkey/cli/ask.h"
#include "nearkey/cli/text.h"

#include <algorithm>
#include <cmath>
#include <ostream>
#include <utility>
#include <vector>

namespace nearkey {

namespace {

// Sections of lines, each with its name on the left.
class Page {
public:
    explicit Page(const Snapshot& snapshot) : snapshot_(snapshot) {}

    void section(const std::string& heading) { text_ += "\n" + heading + "\n"; }
    void line(const std::string& what, const std::string& value) {
        constexpr size_t kWidth = 16;
        text_ += "  " + what + std::string(kWidth - std::min(what.size(), kWidth - 1), ' ');
        text_ += value + "\n";
    }
    void add(const std::string& text) { text_ += text; }
    std::string take() { return std::move(text_); }

    std::string count(const char* name) const { return count_text(snapshot_.stat(name)); }
    std::string bytes(const char* name) const { return bytes_text(snapshot_.stat(name)); }

private:
    const Snapshot& snapshot_;
    std::string text_;
};

void add_clients(Page& page) {
    page.section("Clients");
    page.line("connected", page.count("clients") + " of " + page.count("clients_max"));
    page.line("accepted", page.count("clients_accepted_total") + ", " +
                              page.count("clients_refused_total") + " refused, " +
                              page.count("clients_closed_total") + " closed by nearkey");
    page.line("buffers", page.bytes("client_memory_held_bytes") + " of " +
                             page.bytes("client_memory_max_bytes"));
    page.line("limits", page.count("limits_reached_total") + " times one was reached");
}

void add_commands(Page& page) {
    page.section("Commands");
    page.line("answered here", page.count("commands_answered_total"));
    page.line("by Valkey", page.count("commands_forwarded_total") + ", " +
                               page.count("reads_retried_total") + " of them sent again");
    page.line("failed", page.count("requests_failed_total") + ": " +
                            page.count("upstream_down_total") + " never sent, " +
                            page.count("upstream_lost_total") + " lost, " +
                            page.count("upstream_timeout_total") + " timed out");
    page.line("slow", page.count("slow_requests_total"));
}

void add_near_cache(Page& page, const Snapshot& snapshot) {
    const double hits = snapshot.stat("near_cache_hits_total");
    const double reads = hits + snapshot.stat("near_cache_misses_total");
    page.section("Near cache");
    page.line("state", near_cache_state(snapshot));
    page.line("hit ratio", share_text(hits, reads) + " of " + count_text(reads) + " reads");
    page.line("memory", page.bytes("near_cache_bytes") + " of " +
                            page.bytes("near_cache_max_bytes") + ", " +
                            page.count("near_cache_entries") + " replies");
    page.line("replies", page.count("near_cache_stored_total") + " stored, " +
                             page.count("near_cache_evictions_total") +
                             " dropped for want of room");
    page.line("invalidated", page.count("near_cache_invalidations_total") + " keys, everything " +
                                 page.count("near_cache_clears_total") + " times");
}

void add_valkey(Page& page, const Snapshot& snapshot) {
    page.section("Valkey");
    page.line("server", server_text(snapshot));
    page.line("connections", page.count("upstream_connections") + " ready, " +
                                 page.count("upstream_connections_connecting") + " connecting, " +
                                 page.count("upstream_connections_handshaking") + " handshaking");
    page.line("dedicated", page.count("upstream_dedicated_leased") + " leased, " +
                               page.count("upstream_dedicated_idle") + " idle, of " +
                               page.count("upstream_dedicated_max") + "; " +
                               page.count("upstream_tunnels") + " are tunnels");
    page.line("requests", page.count("in_flight") + " in flight, " + page.count("queued") +
                              " waiting, " + page.count("tombstones") + " tombstones");
    page.line("troubles", page.count("upstream_reconnects_total") + " connections lost, " +
                              page.count("upstream_dial_failures_total") +
                              " attempts to connect failed");
}

void add_latency(Page& page, const Snapshot& snapshot) {
    Table table({{""}, {"p50", Align::Right}, {"p99", Align::Right}, {"requests", Align::Right}});
    for (size_t i = 0; i < kLatencyRows.size(); ++i) {
        const Buckets& buckets = snapshot.latency[i];
        const auto half = buckets.quantile(0.5);
        if (!half) continue;
        table.add({std::string("  ") + kLatencyRows[i].what, duration_text(*half),
                   duration_text(*buckets.quantile(0.99)), count_text(buckets.count())});
    }
    page.section("Latency since the start");
    if (table.is_empty()) page.line("nothing yet", "");
    for (const std::string& line : table.is_empty() ? std::vector<std::string>{} : table.lines())
        page.add(line + "\n");
}

std::string cluster_text(const nlohmann::ordered_json& cluster) {
    const auto count = [&cluster](const char* what) {
        return std::to_string(std::llround(number_of(cluster, what)));
    };
    return "cluster of " + count("nodes") + " nodes, " + count("nodes_away") + " away, " +
           count("slots_unserved") + " slots not served";
}

}  // namespace

std::string state_text(const Snapshot& snapshot) {
    const std::string state = text_of(snapshot.status, "state");
    const std::string reason = text_of(snapshot.status, "reason");
    const std::string since = duration_text(number_of(snapshot.status, "since_seconds"));
    return state + " for " + since + (state == "ready" ? "" : ": " + reason);
}

std::string server_text(const Snapshot& snapshot) {
    const auto cluster = snapshot.status.find("cluster");
    if (cluster != snapshot.status.end()) return cluster_text(*cluster);
    const auto server = snapshot.status.find("server");
    std::string text = server == snapshot.status.end()
                           ? "none is connected"
                           : text_of(*server, "address") + ", " + text_of(*server, "role");
    text += ", " + count_text(snapshot.stat("failovers_total")) + " failovers";
    if (snapshot.stat("sentinels_known") == 0) return text;
    return text + ", " + count_text(snapshot.stat("sentinels_reachable")) + " of " +
           count_text(snapshot.stat("sentinels_known")) + " Sentinels answer";
}

std::string near_cache_state(const Snapshot& snapshot) {
    if (snapshot.stat("near_cache_suspended") > 0) return "rests until an upgrade has ended";
    return snapshot.stat("near_cache_tracking") > 0 ? "on" : "nothing is stored now";
}

std::string stats_page(const Snapshot& snapshot, const std::string& address) {
    Page page(snapshot);
    page.add("nearkey " + text_of(snapshot.status, "version") + " at " + address + ", up " +
             duration_text(number_of(snapshot.status, "uptime_seconds")) + "\n");
    page.add(state_text(snapshot) + "\n");
    add_clients(page);
    add_commands(page);
    add_near_cache(page, snapshot);
    add_valkey(page, snapshot);
    add_latency(page, snapshot);
    return page.take();
}

int run_stats(const AskOptions& options, std::ostream& out, std::ostream& err) {
    if (options.json) {
        const AdminReply reply = ask_admin(options.target, {"GET", "/stats"}, "nearkey_ready");
        if (!reply.is_good()) return report(reply, err);
        out << json_line(reply.page);
        return finish(out, err);
    }
    const Snapshot snapshot = take_snapshot(options.target);
    if (!snapshot.is_whole) return report(snapshot.failure, err);
    out << stats_page(snapshot, options.target.address);
    return finish(out, err);
}

}  // namespace nearkey
