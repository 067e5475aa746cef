// `nearkey top` without a terminal: what its lines say, and that they fit any window.
#include "nearkey/cli/top_view.h"

#include "nearkey/cli/stats.h"
#include "nearkey/cli/text.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::top_view_test {
namespace {

const std::string kAddress = "/a.sock";
const Past kNoPast;
const TopFrame kFrame{kAddress, kNoPast, 80};

Snapshot snapshot_at(double uptime, double hits) {
    Snapshot snapshot;
    snapshot.is_whole = true;
    snapshot.taken += std::chrono::milliseconds(static_cast<int64_t>(uptime * 1000));
    snapshot.status = {{"version", "1.2.3"},
                       {"state", "ready"},
                       {"reason", ""},
                       {"since_seconds", 5},
                       {"uptime_seconds", uptime}};
    snapshot.stats = {{"nearkey_near_cache_hits_total", hits},
                      {"nearkey_near_cache_misses_total", 100},
                      {"nearkey_commands_answered_total", hits},
                      {"nearkey_near_cache_tracking", 1}};
    snapshot.hot_keys = {{"hits", {{{"key", "00ff"}, {"name", "a\x1b[2Jb"}, {"per_second", 12.5}}}},
                         {"misses", nlohmann::ordered_json::array()}};
    const std::string page =
        "nearkey_request_duration_seconds_bucket{outcome=\"hit\",le=\"0.001\"} " +
        std::to_string(hits) +
        "\nnearkey_request_duration_seconds_bucket{outcome=\"hit\",le=\"+Inf\"} " +
        std::to_string(hits) + "\n";
    for (size_t i = 0; i < kLatencyRows.size(); ++i) {
        snapshot.latency[i] =
            Buckets::of_metrics(page, kLatencyRows[i].histogram, kLatencyRows[i].label);
    }
    return snapshot;
}

std::string text_of_lines(const std::vector<ScreenLine>& lines) {
    std::string text;
    for (const ScreenLine& line : lines)
        text += line.text + "\n";
    return text;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("top: rates are of the time between two snapshots") {
    const Snapshot before = snapshot_at(10, 1000);
    const Snapshot now = snapshot_at(12, 3000);
    const std::string text = text_of_lines(top_lines(now, &before, kFrame));
    CHECK(text.starts_with("ready for 5.0 s   nearkey 1.2.3 at /a.sock, up 12.0 s\n"));
    CHECK(contains(text, "commands    1.0k/s   here 1.0k/s   Valkey 0/s   failed 0/s\n"));
    CHECK(contains(text, "hit ratio 100.0 %   hits 1.0k/s   misses 0/s   on\n"));
    CHECK(contains(text, "hit               500 us  990 us  1.0k/s\n"));
    CHECK(contains(text, "miss                   -       -     0/s\n"));
    CHECK(contains(text, "a?[2Jb          12/s\n"));
}

TEST_CASE("top: without an earlier snapshot, or with one of another process, there are no rates") {
    const Snapshot now = snapshot_at(2, 300);
    const Snapshot other = snapshot_at(100, 1000);
    for (const Snapshot* const before : {static_cast<const Snapshot*>(nullptr), &other}) {
        const std::string text = text_of_lines(top_lines(now, before, kFrame));
        CHECK(contains(text, "commands    -   here -   Valkey -   failed -\n"));
        CHECK(contains(text, "hit ratio 75.0 %   hits -"));
    }
}

TEST_CASE("top: a page that lacks numbers, or has other things in their place, is shown as zeros") {
    Snapshot odd = snapshot_at(1, 1);
    odd.stats = {{"nearkey_clients", "many"}};
    odd.hot_keys = {{"hits", 7}, {"misses", {1, 2}}};
    const std::string text = text_of_lines(top_lines(odd, nullptr, kFrame));
    CHECK(contains(text, "clients     0 of 0"));
    CHECK(contains(stats_page(odd, "/a.sock"), "hit ratio       - of 0 reads\n"));
}

TEST_CASE("top: of a cluster the nodes are shown, and of very many how many there are more") {
    Snapshot now = snapshot_at(2, 300);
    CHECK(!contains(text_of_lines(top_lines(now, nullptr, kFrame)), "in flight  waiting"));
    now.status["state"] = "degraded";
    now.status["reason"] = "5461 slots are not served";
    now.status["cluster"] = {{"nodes", 12}, {"nodes_away", 1}, {"slots_unserved", 5461}};
    const auto node = [](const char* address, const char* state) {
        return nlohmann::ordered_json{
            {"address", address}, {"state", state}, {"since_seconds", 5}, {"slots", 5461},
            {"connections", 2},   {"in_flight", 3}, {"waiting", 4}};
    };
    now.nodes = {{"total", 12},
                 {"nodes", {node("10.0.0.1:6379", "no \x1b[2JPONG"), node("b:1", "ready")}}};
    const std::string text = text_of_lines(top_lines(now, nullptr, kFrame));
    CHECK(text.starts_with("degraded for 5.0 s: 5461 slots are not served   nearkey"));
    CHECK(contains(text, "cluster of 12 nodes, 1 away, 5461 slots not served\n"));
    CHECK(contains(
        text, "10.0.0.1:6379   5461            2          3        4  no ?[2JPONG for 5.0 s\n"));
    CHECK(
        contains(text, "b:1             5461            2          3        4  ready for 5.0 s\n"));
    CHECK(contains(text, "10 more: nearkey nodes\n"));
}

TEST_CASE("top: whatever the window, the lines fit, and empty ones go first") {
    const Snapshot now = snapshot_at(12, 3000);
    const std::vector<ScreenLine> all = top_lines(now, nullptr, kFrame);
    for (const size_t rows : {size_t{1}, size_t{10}, size_t{15}, size_t{100}}) {
        for (const size_t columns : {size_t{0}, size_t{1}, size_t{40}, size_t{200}}) {
            const auto lines = fitted(all, {rows, columns});
            CHECK(lines.size() <= rows);
            CHECK(lines.size() >= std::min(rows, size_t{10}));
            for (const ScreenLine& line : lines)
                CHECK(columns_of(line.text) <= columns);
        }
    }
    CHECK(fitted(all, {100, 200}).size() == all.size());
    CHECK(contains(text_of_lines(fitted(all, {10, 40})),
                   "ready for 5.0 s   nearkey 1.2.3 at /a.s~\n"));
    CHECK_FALSE(contains(text_of_lines(fitted(all, {10, 40})), "\n\n"));
}

TEST_CASE("top: while nobody answers the reason is shown whole, in the window's width") {
    const auto lines = away_lines("nobody answers at /run/nearkey/admin.sock: No such file", 30);
    CHECK(text_of_lines(lines) ==
          "nearkey does not answer; trying again\n\nnobody answers at\n"
          "/run/nearkey/admin.sock: No\nsuch file\n");
}

}  // namespace
}  // namespace nearkey::top_view_test
