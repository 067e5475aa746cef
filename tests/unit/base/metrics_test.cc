// The rows that the admin pages print.
#include "nearkey/base/metrics.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace nearkey {
namespace {

TEST_CASE("metrics: every row has a name of its own, prefixed and plain, and a help text") {
    std::set<std::string_view> names;
    for (const MetricRow& row : metric_rows()) {
        CAPTURE(std::string(row.name));
        CHECK(names.insert(row.name).second);
        CHECK(row.name.starts_with("nearkey_"));
        CHECK(row.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string_view::npos);
        CHECK_FALSE(row.help.empty());
        CHECK(row.help.find_first_of("\n\\") == std::string_view::npos);
    }
    CHECK(names.size() > 1);
}

TEST_CASE("metrics: counters end with _total, gauges do not") {
    for (const MetricRow& row : metric_rows()) {
        CAPTURE(std::string(row.name));
        CHECK(row.name.ends_with("_total") == (row.type == MetricType::Counter));
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
    CHECK(number * sizeof(uint64_t) == sizeof(Metrics));
}

}  // namespace
}  // namespace nearkey
