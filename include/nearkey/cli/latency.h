// Quantiles of the histograms in /metrics, of all time or of the time between two readings.
// A value made of the page's text; a missing series counts as empty.
#pragma once

#include <map>
#include <optional>
#include <string_view>

namespace nearkey {

class Buckets {
public:
    // Adds up all series of that histogram whose labels hold `label`; "" is in all.
    static Buckets of_metrics(std::string_view metrics, std::string_view name,
                              std::string_view label);

    // The counts since then. If `earlier` is another process's, which counted more: all of them.
    Buckets since(const Buckets& earlier) const;
    double count() const { return below_.empty() ? 0 : below_.rbegin()->second; }
    // In seconds, as Prometheus estimates it: between two bounds the durations lie evenly. Nothing
    // if nothing was counted. Above all bounds it is the highest of them.
    std::optional<double> quantile(double part) const;

private:
    std::map<double, double> below_;  // how many are at or below each bound, infinity the last
};

}  // namespace nearkey
