// The rows that the admin pages print.
#include "nearkey/base/metrics.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <map>
#include <set>
#include <string>

namespace nearkey::metrics_test {
namespace {

// Of the rows whose family is the same one.
bool is_first_of_family(const MetricRow& row) {
    return &row == metric_rows().data() || (&row - 1)->family != row.family;
}

TEST_CASE("metrics: every row has a name of its own, prefixed and plain, and a help text") {
    std::set<std::string_view> names;
    for (const MetricRow& row : metric_rows()) {
        CAPTURE(std::string(row.name));
        CHECK(names.insert(row.name).second);
        CHECK(row.name.starts_with("nearkey_"));
        CHECK(row.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string_view::npos);
        CHECK(row.help.empty() == !is_first_of_family(row));
        CHECK(row.help.find_first_of("\n\\") == std::string_view::npos);
    }
    CHECK(names.size() > 1);
}

TEST_CASE("metrics: counters end with _total, gauges do not") {
    for (const MetricRow& row : metric_rows()) {
        CAPTURE(std::string(row.name));
        CHECK(row.name.ends_with("_total") == (row.type == MetricType::Counter));
        CHECK(row.family.ends_with("_total") == (row.type == MetricType::Counter));
        // Of times since 1970 the milliseconds are of no use.
        const bool is_date = row.family == "nearkey_tls_certificate_expires_seconds";
        CHECK(row.family.ends_with("_seconds") == (row.type == MetricType::GaugeMs || is_date));
    }
}

TEST_CASE("metrics: the rows of a family stand together, of one type, with labels of their own") {
    std::set<std::string_view> families;
    std::set<std::string> series;
    for (const MetricRow& row : metric_rows()) {
        CAPTURE(std::string(row.name));
        CHECK(families.insert(row.family).second == is_first_of_family(row));
        if (!is_first_of_family(row)) CHECK((&row - 1)->type == row.type);
        CHECK(series.insert(std::string(row.family) + std::string(row.label)).second);
        // name="value": nothing to escape, nothing that a client sent.
        if (row.label.empty()) continue;
        const size_t equals = row.label.find("=\"");
        REQUIRE(equals != std::string_view::npos);
        CHECK(row.label.ends_with('"'));
        const std::string_view value = row.label.substr(equals + 2, row.label.size() - equals - 3);
        CHECK(value.find_first_not_of("abcdefghijklmnopqrstuvwxyz_.") == std::string_view::npos);
    }
}

TEST_CASE("metrics: every field has exactly one row, and begins with 0") {
    Metrics metrics;
    uint64_t number = 0;
    for (const MetricRow& row : metric_rows()) {
        CAPTURE(std::string(row.name));
        CHECK(metrics.*row.field == 0);
        metrics.*row.field = ++number;
    }
    const auto* const begin = reinterpret_cast<const char*>(&metrics);
    const auto* const end = reinterpret_cast<const char*>(&metrics.histograms);
    CHECK(number * sizeof(uint64_t) == static_cast<size_t>(end - begin));
}

TEST_CASE("metrics: the flat list has each row, sums of families of counters, and seconds") {
    Metrics metrics;
    metrics.clients_closed_input_total = 2;
    metrics.protocol_errors_total = 3;
    metrics.near_cache_lease_ms = 250;
    metrics.histograms.own.add(1500, 2);
    metrics.histograms.upstream[0].add(1'000'000, 1);
    metrics.histograms.upstream[1].add(500'000, 1);
    std::map<std::string, std::string> stats;
    for_each_stat(metrics, [&](std::string_view name, std::string_view value) {
        CAPTURE(std::string(name));
        CHECK(stats.emplace(name, value).second);
    });
    CHECK(stats["nearkey_clients_closed_input_total"] == "2");
    CHECK(stats["nearkey_clients_closed_total"] == "5");
    CHECK(stats["nearkey_near_cache_lease_seconds"] == "0.25");
    CHECK(stats["nearkey_own_duration_seconds_count"] == "2");
    CHECK(stats["nearkey_own_duration_seconds_sum"] == "0.003");
    CHECK(stats["nearkey_upstream_duration_seconds_count"] == "2");
    CHECK(stats["nearkey_upstream_duration_seconds_sum"] == "1.5");
}

TEST_CASE("histogram: a duration is counted in the first bound that is not shorter") {
    for (const uint32_t us :
         {0u,       1u,         9u,         10u,        11u,         20u,         21u,       49u,
          50u,      51u,        64u,        127u,       128u,        199u,        200u,      201u,
          999'999u, 1'000'000u, 1'000'001u, 9'999'999u, 10'000'000u, 10'000'001u, UINT32_MAX}) {
        CAPTURE(us);
        size_t expected = 0;
        while (expected < Histogram::kBounds.size() && Histogram::kBounds[expected] < us)
            ++expected;
        CHECK(Histogram::bucket_of(us) == expected);
    }
    Histogram histogram;
    histogram.add(15, 3);
    histogram.add(UINT32_MAX, 2);
    CHECK(histogram.counts()[1] == 3);
    CHECK(histogram.counts().back() == 2);
    CHECK(histogram.count() == 5);
    CHECK(histogram.sum_us() == 45 + 2 * uint64_t{UINT32_MAX});
}

}  // namespace
TEST_CASE("what several event loops count is told as one") {
    Metrics one;
    Metrics other;
    MetricsGroup group;
    group.add(one);
    group.add(other);
    one.clients = 3;
    other.clients = 4;
    one.ready = 1;
    one.near_cache_stale = 1;
    one.near_cache_lease_ms = 20;
    other.near_cache_lease_ms = 30;
    one.clients_max = other.clients_max = 100;
    one.histograms.turn.add(7, 2);
    other.histograms.turn.add(70'000, 1);
    const Metrics total = group.total();
    CHECK(total.clients == 7);
    CHECK(group.total(&Metrics::clients) == 7);
    CHECK(total.ready == 0);
    CHECK(total.near_cache_stale == 1);
    CHECK(total.near_cache_lease_ms == 30);
    CHECK(total.clients_max == 100);
    CHECK(total.histograms.turn.count() == 3);
    CHECK(total.histograms.turn.sum_us() == 70'014);
    CHECK(one.histograms.turn.count() == 2);
}

TEST_CASE("what several event loops count of a command is told as one, and in all") {
    Metrics one;
    Metrics other;
    MetricsGroup group;
    group.add(one);
    group.add(other);
    ++one.commands.of("get").forwarded;
    ++other.commands.of("get").answered;
    other.commands.of("get").count_error("WRONGTYPE Operation against a key");
    ++other.commands.of("client|setname").answered;
    ++other.commands.unknown().forwarded;
    const Metrics total = group.total();
    CHECK(total.commands_forwarded_total == 2);
    CHECK(total.commands_answered_total == 2);
    std::map<std::string, std::string> stats;
    for_each_stat(
        total, [&](std::string_view name, std::string_view value) { stats.emplace(name, value); });
    CHECK(stats["nearkey_commands_total"] == "4");
    CHECK(stats["nearkey_commands_total{command=\"get\",route=\"forwarded\"}"] == "1");
    CHECK(stats["nearkey_commands_total{command=\"get\",route=\"local\"}"] == "1");
    CHECK(stats["nearkey_commands_total{command=\"client|setname\",route=\"local\"}"] == "1");
    CHECK(stats["nearkey_commands_total{command=\"unknown\",route=\"forwarded\"}"] == "1");
    CHECK(stats["nearkey_command_errors_total{command=\"get\",code=\"WRONGTYPE\"}"] == "1");
    CHECK(stats["nearkey_command_errors_total{command=\"unknown\",code=\"ERR\"}"] == "0");
}

}  // namespace nearkey::metrics_test
