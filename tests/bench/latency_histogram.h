// How long requests took, as counts of logarithmic buckets: 64 to each doubling, so that a figure
// is within 1.6 % of the truth. Adding costs a few instructions; the size is fixed.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace nearkey::bench {

class LatencyHistogram {
public:
    void add(uint64_t ns) { ++counts_[bucket_of(ns)]; }

    void merge(const LatencyHistogram& other) {
        for (size_t i = 0; i < kBuckets; ++i)
            counts_[i] += other.counts_[i];
    }

    uint64_t count() const {
        uint64_t all = 0;
        for (const uint64_t count : counts_)
            all += count;
        return all;
    }

    // The middle of the bucket below which that share of all lies; 0 when there is nothing.
    double percentile_ns(double share) const {
        auto left = static_cast<uint64_t>(static_cast<double>(count()) * share);
        uint64_t last = 0;
        for (size_t i = 0; i < kBuckets; ++i) {
            if (counts_[i] > left) return middle_of(i);
            left -= counts_[i];
            if (counts_[i] > 0) last = i;
        }
        return count() > 0 ? middle_of(last) : 0;  // the share 1.0: the longest
    }

private:
    static constexpr size_t kSteps = 64;
    static constexpr int kStepBits = 6;
    // Below 64 ns each nanosecond has its own; above, the highest bits choose.
    static constexpr size_t kBuckets = (64 - kStepBits + 1) * kSteps;

    static size_t bucket_of(uint64_t ns) {
        if (ns < kSteps) return static_cast<size_t>(ns);
        const int shift = static_cast<int>(std::bit_width(ns)) - 1 - kStepBits;
        return static_cast<size_t>(shift) * kSteps + static_cast<size_t>(ns >> shift);
    }
    static double middle_of(size_t bucket) {
        if (bucket < 2 * kSteps) return static_cast<double>(bucket);
        const size_t shift = bucket / kSteps - 1;
        const auto width = static_cast<double>(uint64_t{1} << shift);
        return (static_cast<double>(bucket % kSteps + kSteps) + 0.5) * width;
    }

    std::array<uint64_t, kBuckets> counts_{};
};

}  // namespace nearkey::bench
