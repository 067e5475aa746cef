// Quantiles out of the text of /metrics.
#include "nearkey/cli/latency.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::latency_test {
namespace {

constexpr const char* kPage = R"(# TYPE d histogram
d_bucket{family="string",outcome="hit",le="0.001"} 50
d_bucket{family="string",outcome="hit",le="0.002"} 90
d_bucket{family="string",outcome="hit",le="+Inf"} 100
d_sum{family="string",outcome="hit"} 1
d_bucket{family="hash",outcome="hit",le="0.001"} 50
d_bucket{family="hash",outcome="hit",le="0.002"} 90
d_bucket{family="hash",outcome="hit",le="+Inf"} 100
d_bucket{family="hash",outcome="miss",le="0.001"} 0
d_bucket{family="hash",outcome="miss",le="0.002"} 0
d_bucket{family="hash",outcome="miss",le="+Inf"} 7
d_bucket{broken
d_bucket{le="x"} 1
d_bucket{le="0.001"} x
d_bucket{le="0.001"}
)";

TEST_CASE("latency: series of the same label are added up, and durations lie evenly in between") {
    const Buckets hits = Buckets::of_metrics(kPage, "d", "outcome=\"hit\"");
    CHECK(hits.count() == 200);
    CHECK(*hits.quantile(0.5) == doctest::Approx(0.001));
    CHECK(*hits.quantile(0.25) == doctest::Approx(0.0005));
    CHECK(*hits.quantile(0.7) == doctest::Approx(0.0015));
}

TEST_CASE("latency: above all bounds it is the highest of them") {
    CHECK(*Buckets::of_metrics(kPage, "d", "outcome=\"hit\"").quantile(0.99) == 0.002);
    CHECK(*Buckets::of_metrics(kPage, "d", "outcome=\"miss\"").quantile(0.5) == 0.002);
}

TEST_CASE("latency: nothing counted has no quantile") {
    CHECK_FALSE(Buckets::of_metrics(kPage, "other", "").quantile(0.5));
    CHECK_FALSE(Buckets::of_metrics("", "d", "").quantile(0.5));
    const Buckets hits = Buckets::of_metrics(kPage, "d", "outcome=\"hit\"");
    CHECK_FALSE(hits.since(hits).quantile(0.5));
}

TEST_CASE("latency: between two readings counts what came in between, of one process") {
    const std::string early = "d_bucket{le=\"1\"} 10\nd_bucket{le=\"+Inf\"} 10\n";
    const std::string late = "d_bucket{le=\"1\"} 10\nd_bucket{le=\"+Inf\"} 14";
    const Buckets before = Buckets::of_metrics(early, "d", "");
    const Buckets now = Buckets::of_metrics(late, "d", "");
    CHECK(now.since(before).count() == 4);
    CHECK(*now.since(before).quantile(0.5) == 1);
    CHECK(before.since(now).count() == 10);
}

}  // namespace
}  // namespace nearkey::latency_test
