#include "nearkey/cli/top_view.h"

#include "nearkey/cli/stats.h"
#include "nearkey/cli/text.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <sstream>
#include <utility>

namespace nearkey {

namespace {

constexpr size_t kHotKeyRows = 10;
constexpr const char* kUnknown = "-";

// The growth of counters of /stats in a second.
class Rates {
public:
    Rates(const Snapshot& now, const Snapshot* before) : now_(now), before_(before) {
        if (before == nullptr) return;
        const bool is_same =
            number_of(now.status, "uptime_seconds") >= number_of(before->status, "uptime_seconds");
        seconds_ = std::chrono::duration<double>(now.taken - before->taken).count();
        if (!is_same || seconds_ <= 0) before_ = nullptr;
    }

    bool are_known() const { return before_ != nullptr; }
    // REQUIRES: are_known().
    double gain(const char* name) const {
        return std::max(now_.stat(name) - before_->stat(name), 0.0);
    }
    std::string text(std::initializer_list<const char*> names) const {
        if (!are_known()) return kUnknown;
        double all = 0;
        for (const char* const name : names)
            all += gain(name);
        return rate_text(all / seconds_);
    }
    // The ratio in the time between the two; of all time if that is not known.
    std::string hit_ratio() const {
        constexpr const char* kHits = "near_cache_hits_total";
        constexpr const char* kMisses = "near_cache_misses_total";
        const double hits = are_known() ? gain(kHits) : now_.stat(kHits);
        const double misses = are_known() ? gain(kMisses) : now_.stat(kMisses);
        return share_text(hits, hits + misses);
    }
    Buckets latency(size_t row) const {
        return are_known() ? now_.latency[row].since(before_->latency[row]) : now_.latency[row];
    }
    std::string per_second(double count) const {
        return are_known() ? rate_text(count / seconds_) : kUnknown;
    }

private:
    const Snapshot& now_;
    const Snapshot* before_;
    double seconds_ = 0;
};

ScreenLine labelled(std::string label, const std::vector<std::string>& parts) {
    label.resize(kTopLabel, ' ');
    for (size_t i = 0; i < parts.size(); ++i)
        label += (i > 0 ? "   " : "") + parts[i];
    return {std::move(label)};
}

void add_table(const Table& table, std::vector<ScreenLine>& lines) {
    bool is_heading = true;
    for (std::string& line : table.lines())
        lines.push_back({std::move(line), std::exchange(is_heading, false)});
}

void add_rates(const Snapshot& now, const Rates& rates, std::vector<ScreenLine>& lines) {
    const auto count = [&](const char* name) { return count_text(now.stat(name)); };
    const auto bytes = [&](const char* name) { return bytes_text(now.stat(name)); };
    lines.push_back(
        labelled("commands", {rates.text({"commands_answered_total", "commands_forwarded_total"}),
                              "here " + rates.text({"commands_answered_total"}),
                              "Valkey " + rates.text({"commands_forwarded_total"}),
                              "failed " + rates.text({"requests_failed_total"})}));
    lines.push_back(
        labelled("near cache",
                 {"hit ratio " + rates.hit_ratio(), "hits " + rates.text({"near_cache_hits_total"}),
                  "misses " + rates.text({"near_cache_misses_total"}), near_cache_state(now)}));
    lines.push_back(
        labelled("", {bytes("near_cache_bytes") + " of " + bytes("near_cache_max_bytes"),
                      count("near_cache_entries") + " replies",
                      "invalidated " + rates.text({"near_cache_invalidations_total"}),
                      "dropped " + rates.text({"near_cache_evictions_total"})}));
    // Told by the readers, one hit in so many: a rate is as coarse.
    if (now.stat("shared_bytes") > 0) {
        lines.push_back(
            labelled("shared", {bytes("shared_bytes"), count("shared_items") + " replies",
                                "hits told by readers " + rates.text({"shared_hits_total"}),
                                "dropped " + rates.text({"shared_evictions_total"})}));
    }
    lines.push_back(labelled("clients", {count("clients") + " of " + count("clients_max"),
                                         "new " + rates.text({"clients_accepted_total"}),
                                         "refused " + rates.text({"clients_refused_total"}),
                                         bytes("client_memory_bytes") + " in buffers"}));
    lines.push_back(labelled(
        "Valkey",
        {count("upstream_connections") + " connections",
         count("upstream_dedicated_leased") + " leased", count("in_flight") + " in flight",
         count("queued") + " waiting", "lost " + rates.text({"upstream_reconnects_total"})}));
    lines.push_back(labelled("", {server_text(now)}));
}

void add_nodes(const Snapshot& now, std::vector<ScreenLine>& lines) {
    const nlohmann::ordered_json& nodes = rows_of(now.nodes, "nodes");
    if (nodes.empty()) return;
    Table table({{"node"},
                 {"slots", Align::Right},
                 {"connections", Align::Right},
                 {"in flight", Align::Right},
                 {"waiting", Align::Right},
                 {"state"}});
    const auto count = [](const nlohmann::ordered_json& node, const char* what) {
        return count_text(number_of(node, what));
    };
    for (const nlohmann::ordered_json& node : nodes) {
        const bool is_replica = text_of(node, "role") == "replica";
        std::string state =
            text_of(node, "state") + " for " + duration_text(number_of(node, "since_seconds"));
        if (node.contains("lag_seconds"))
            state += ", up to date " + duration_text(number_of(node, "lag_seconds")) + " ago";
        table.add({text_of(node, "address"),
                   is_replica ? "replica" : std::to_string(std::llround(number_of(node, "slots"))),
                   count(node, "connections"), count(node, "in_flight"), count(node, "waiting"),
                   std::move(state)});
    }
    add_table(table, lines);
    const double more = number_of(now.nodes, "total") - static_cast<double>(nodes.size());
    if (more > 0) lines.push_back({count_text(more) + " more: nearkey nodes"});
    lines.push_back({});
}

void add_past(const TopFrame& frame, std::vector<ScreenLine>& lines) {
    std::vector<ScreenLine> past = frame.past.lines(frame.columns);
    if (past.empty()) return;
    std::move(past.begin(), past.end(), std::back_inserter(lines));
    lines.push_back({});
}

void add_latency(const Rates& rates, std::vector<ScreenLine>& lines) {
    Table table(
        {{"latency"}, {"p50", Align::Right}, {"p99", Align::Right}, {"rate", Align::Right}});
    for (size_t i = 0; i < kLatencyRows.size(); ++i) {
        const Buckets buckets = rates.latency(i);
        const auto half = buckets.quantile(0.5);
        const auto most = buckets.quantile(0.99);
        table.add({kLatencyRows[i].what, half ? duration_text(*half) : kUnknown,
                   most ? duration_text(*most) : kUnknown, rates.per_second(buckets.count())});
    }
    add_table(table, lines);
}

std::pair<std::string, std::string> hot_key(const nlohmann::ordered_json& rows, size_t at) {
    if (at >= rows.size()) return {};
    const std::string name = text_of(rows[at], "name");
    return {name.empty() ? text_of(rows[at], "key") : name,
            rate_text(number_of(rows[at], "per_second"))};
}

void add_hot_keys(const Snapshot& now, std::vector<ScreenLine>& lines) {
    const nlohmann::ordered_json& hits = rows_of(now.hot_keys, "hits");
    const nlohmann::ordered_json& misses = rows_of(now.hot_keys, "misses");
    Table table({{"hot keys: hits"}, {"rate", Align::Right}, {"misses"}, {"rate", Align::Right}});
    for (size_t i = 0; i < std::min(std::max(hits.size(), misses.size()), kHotKeyRows); ++i) {
        const auto [hit, hit_rate] = hot_key(hits, i);
        const auto [miss, miss_rate] = hot_key(misses, i);
        table.add({hit, hit_rate, miss, miss_rate});
    }
    if (!table.is_empty()) add_table(table, lines);
}

}  // namespace

std::vector<ScreenLine> top_lines(const Snapshot& now, const Snapshot* before,
                                  const TopFrame& frame) {
    const Rates rates(now, before);
    std::vector<ScreenLine> lines;
    lines.push_back({state_text(now) + "   nearkey " + text_of(now.status, "version") + " at " +
                         frame.address + ", up " +
                         duration_text(number_of(now.status, "uptime_seconds")),
                     true});
    lines.push_back({});
    add_rates(now, rates, lines);
    lines.push_back({});
    add_past(frame, lines);
    add_nodes(now, lines);
    add_latency(rates, lines);
    lines.push_back({});
    add_hot_keys(now, lines);
    return lines;
}

std::vector<ScreenLine> away_lines(const std::string& problem, size_t columns) {
    std::vector<ScreenLine> lines = {{"nearkey does not answer; trying again", true}, {}};
    std::istringstream words(problem);
    std::string line;
    for (std::string word; words >> word;) {
        if (!line.empty() && columns_of(line) + 1 + columns_of(word) > columns) {
            lines.push_back({std::exchange(line, "")});
        }
        line += (line.empty() ? "" : " ") + word;
    }
    lines.push_back({line});
    return lines;
}

std::vector<ScreenLine> fitted(std::vector<ScreenLine> lines, const ScreenSize& size) {
    const auto is_empty = [](const ScreenLine& line) { return line.text.empty(); };
    if (lines.size() > size.rows) std::erase_if(lines, is_empty);
    if (lines.size() > size.rows) lines.resize(size.rows);
    for (ScreenLine& line : lines)
        line.text = cut(line.text, size.columns);
    return lines;
}

}  // namespace nearkey
