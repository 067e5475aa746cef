#include "nearkey/cli/latency.h"

#include <cmath>
#include <string>

namespace nearkey {

namespace {

// No 64-bit counter is above it; sums of it are finite.
constexpr double kCountMax = 0x1p64;

// Reads a number as strtod() does, "+Inf" too; the page's end is no digit.
std::optional<double> number_at(std::string_view text) {
    const std::string copy(text.substr(0, 32));
    char* end = nullptr;
    const double number = std::strtod(copy.c_str(), &end);
    return end == copy.c_str() || std::isnan(number) ? std::nullopt : std::optional(number);
}

}  // namespace

Buckets Buckets::of_metrics(std::string_view metrics, std::string_view name,
                            std::string_view label) {
    constexpr std::string_view kBound = "le=\"";
    constexpr std::string_view kValue = "} ";
    const std::string start = std::string(name) + "_bucket{";
    Buckets all;
    while (!metrics.empty()) {
        const std::string_view line = metrics.substr(0, metrics.find('\n'));
        metrics.remove_prefix(std::min(line.size() + 1, metrics.size()));
        const size_t bound_at = line.find(kBound);
        const size_t value_at = line.rfind(kValue);
        if (!line.starts_with(start) || line.find(label) == std::string_view::npos) continue;
        if (bound_at == std::string_view::npos || value_at == std::string_view::npos) continue;
        const auto bound = number_at(line.substr(bound_at + kBound.size()));
        const auto count = number_at(line.substr(value_at + kValue.size()));
        if (bound && count && std::abs(*count) < kCountMax) all.below_[*bound] += *count;
    }
    return all;
}

Buckets Buckets::since(const Buckets& earlier) const {
    if (earlier.count() > count()) return *this;
    Buckets rest = *this;
    for (auto& [bound, count] : rest.below_) {
        const auto before = earlier.below_.find(bound);
        if (before != earlier.below_.end()) count -= before->second;
    }
    return rest;
}

std::optional<double> Buckets::quantile(double part) const {
    if (count() <= 0) return std::nullopt;
    const double rank = part * count();
    double bound_below = 0;
    double count_below = 0;
    for (const auto& [bound, count] : below_) {
        if (count >= rank && count > count_below) {
            if (std::isinf(bound)) return bound_below;
            const double share = (rank - count_below) / (count - count_below);
            return bound_below + (bound - bound_below) * share;
        }
        bound_below = bound;
        count_below = count;
    }
    return bound_below;
}

}  // namespace nearkey
