#include "latency_histogram.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>

using nearkey::bench::LatencyHistogram;

TEST_CASE("latency histogram: a figure is within 1.6 % of what was added") {
    for (const uint64_t ns : std::initializer_list<uint64_t>{
             0, 1, 63, 64, 65, 127, 128, 129, 999, 1'000'000, 123'456'789, uint64_t{1} << 40,
             (uint64_t{1} << 63) + 5, UINT64_MAX}) {
        LatencyHistogram histogram;
        histogram.add(ns);
        const auto exact = static_cast<double>(ns);
        for (const double share : {0.0, 0.5, 0.99, 1.0}) {
            CHECK(histogram.percentile_ns(share) >= exact * (1 - 0.016));
            CHECK(histogram.percentile_ns(share) <= exact * (1 + 0.016));
        }
    }
}

TEST_CASE("latency histogram: percentiles of a thousand lengths") {
    LatencyHistogram histogram;
    for (uint64_t us = 1; us <= 1000; ++us)
        histogram.add(us * 1000);
    CHECK(histogram.count() == 1000);
    CHECK(histogram.percentile_ns(0.5) == doctest::Approx(500'000).epsilon(0.02));
    CHECK(histogram.percentile_ns(0.99) == doctest::Approx(990'000).epsilon(0.02));
    CHECK(histogram.percentile_ns(0.999) == doctest::Approx(1'000'000).epsilon(0.02));
}

TEST_CASE("latency histogram: merged, two say what one would have said") {
    LatencyHistogram one;
    LatencyHistogram first;
    LatencyHistogram second;
    for (uint64_t i = 0; i < 1000; ++i) {
        one.add(i * i);
        (i % 3 == 0 ? first : second).add(i * i);
    }
    first.merge(second);
    CHECK(first.count() == one.count());
    for (const double share : {0.01, 0.5, 0.9, 0.999, 1.0})
        CHECK(first.percentile_ns(share) == one.percentile_ns(share));
}

TEST_CASE("latency histogram: of nothing, every percentile is 0") {
    CHECK(LatencyHistogram().percentile_ns(0.99) == 0);
}
