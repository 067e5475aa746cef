// The two text formats of /metrics.
#include "nearkey/server/metrics_text.h"

#include <doctest/doctest.h>

namespace nearkey::metrics_text_test {
namespace {

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("metrics text: a family's help and type stand once, before its rows") {
    Metrics metrics;
    metrics.clients_refused_memory_total = 7;
    const std::string text = metrics_text(metrics, MetricsFormat::Prometheus);
    CHECK(contains(text,
                   "# TYPE nearkey_clients_refused_total counter\n"
                   "# HELP nearkey_clients_refused_total clients refused when they connected\n"
                   "nearkey_clients_refused_total{reason=\"clients_max\"} 0\n"
                   "nearkey_clients_refused_total{reason=\"memory_max\"} 7\n"
                   "nearkey_clients_refused_total{reason=\"user\"} 0\n"
                   "nearkey_clients_refused_total{reason=\"when_down\"} 0\n# TYPE "));
    CHECK(contains(text, "# TYPE nearkey_build_info gauge\n"));
    CHECK(contains(text, "nearkey_build_info{version=\"" NEARKEY_VERSION "\"} 1\n"));
    CHECK_FALSE(contains(text, "# EOF"));
}

TEST_CASE("metrics text: commands are told by name, and so are their errors") {
    Metrics metrics;
    metrics.commands.of("get").answered = 3;
    metrics.commands.of("get").count_error("-WRONGTYPE Operation\r\n");
    static_cast<void>(metrics.commands.of("set"));
    const std::string text = metrics_text(metrics, MetricsFormat::Prometheus);
    CHECK(contains(text,
                   "where the answer came from\n"
                   "nearkey_commands_total{command=\"get\",route=\"forwarded\"} 0\n"
                   "nearkey_commands_total{command=\"unknown\",route=\"forwarded\"} 0\n"
                   "nearkey_commands_total{command=\"get\",route=\"local\"} 3\n"
                   "nearkey_commands_total{command=\"unknown\",route=\"local\"} 0\n# TYPE "));
    CHECK(contains(text,
                   "nearkey_command_errors_total{command=\"get\",code=\"WRONGTYPE\"} 1\n"
                   "nearkey_command_errors_total{command=\"unknown\",code=\"ERR\"} 0\n# TYPE "));
    CHECK(contains(stats_text(metrics),
                   "\"nearkey_commands_total{command=\\\"get\\\",route=\\\"local\\\"}\":3,"));
}

TEST_CASE("metrics text: OpenMetrics names a counter without _total, has units and an end") {
    Metrics metrics;
    metrics.near_cache_lease_ms = 1500;
    const std::string text = metrics_text(metrics, MetricsFormat::OpenMetrics);
    CHECK(contains(text, "# TYPE nearkey_heartbeats counter\n"));
    CHECK(contains(text, "\nnearkey_heartbeats_total 0\n"));
    CHECK(contains(text, "# TYPE nearkey_build info\n"));
    CHECK(contains(text, "# UNIT nearkey_near_cache_bytes bytes\n"));
    CHECK(contains(text, "# UNIT nearkey_near_cache_lease_seconds seconds\n"));
    CHECK(contains(text, "\nnearkey_near_cache_lease_seconds 1.5\n"));
    CHECK(text.ends_with("\n# EOF\n"));
}

TEST_CASE("metrics text: buckets of a histogram add up, its sum is in seconds") {
    Metrics metrics;
    const auto get = static_cast<size_t>(CommandFamily::String);
    const auto hit = static_cast<size_t>(RequestOutcome::Hit);
    metrics.histograms.request[get][hit].add(10, 2);
    metrics.histograms.request[get][hit].add(15'000'000, 1);
    const std::string text = metrics_text(metrics, MetricsFormat::Prometheus);
    const std::string labels = "family=\"string\",outcome=\"hit\"";
    const std::string name = "\nnearkey_request_duration_seconds";
    CHECK(contains(text, name + "_bucket{" + labels + ",le=\"0.00001\"} 2\n"));
    CHECK(contains(text, name + "_bucket{" + labels + ",le=\"10\"} 2\n"));
    CHECK(contains(text, name + "_bucket{" + labels + ",le=\"+Inf\"} 3\n"));
    CHECK(contains(text, name + "_sum{" + labels + "} 15.00002\n"));
    CHECK(contains(text, name + "_count{" + labels + "} 3\n"));
    // What has counted nothing and has labels is left out; what has none stands there.
    CHECK_FALSE(contains(text, "family=\"hash\""));
    CHECK(contains(text, "\nnearkey_own_duration_seconds_bucket{le=\"+Inf\"} 0\n"));
}

TEST_CASE("metrics text: who asks for OpenMetrics gets it") {
    CHECK(metrics_format("") == MetricsFormat::Prometheus);
    CHECK(metrics_format("text/plain") == MetricsFormat::Prometheus);
    CHECK(metrics_format("application/openmetrics-text;version=1.0.0,text/plain;q=0.5") ==
          MetricsFormat::OpenMetrics);
}

}  // namespace
}  // namespace nearkey::metrics_text_test
