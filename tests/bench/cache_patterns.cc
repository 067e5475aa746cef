#include "cache_patterns.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace nearkey::bench {

namespace {

constexpr size_t kReads = 1'500'000;
constexpr uint32_t kKeys = 500'000;       // that Zipf draws from
constexpr uint32_t kFirstScan = 1 << 30;  // keys of scans are no others
constexpr double kSkew = 0.99;

class Zipf {
public:
    explicit Zipf(double skew) : sums_(kKeys) {
        double sum = 0;
        for (uint32_t i = 0; i < kKeys; ++i)
            sums_[i] = sum += 1 / std::pow(i + 1, skew);
    }
    uint32_t draw(std::mt19937_64& random) const {
        std::uniform_real_distribution<double> any(0, sums_.back());
        const auto found = std::lower_bound(sums_.begin(), sums_.end(), any(random));
        return static_cast<uint32_t>(found - sums_.begin());
    }

private:
    std::vector<double> sums_;
};

std::vector<uint32_t> zipf(double skew) {
    const Zipf law(skew);
    std::mt19937_64 random(1);
    std::vector<uint32_t> keys(kReads);
    for (uint32_t& key : keys)
        key = law.draw(random);
    return keys;
}

// So many percent of the reads, evenly spread, are of keys that come once.
std::vector<uint32_t> zipf_with_once(unsigned percent) {
    std::vector<uint32_t> keys = zipf(kSkew);
    std::mt19937_64 random(2);
    uint32_t next = kFirstScan;
    for (uint32_t& key : keys)
        if (random() % 100 < percent) key = next++;
    return keys;
}

// Every `every` reads, a pass over `length` keys, in one piece: once the same, or always new ones.
std::vector<uint32_t> zipf_with_passes(size_t every, size_t length, bool is_same) {
    std::vector<uint32_t> keys = zipf(kSkew);
    uint32_t next = kFirstScan;
    for (size_t start = every; start + length < keys.size(); start += every + length) {
        if (is_same) next = kFirstScan;
        for (size_t i = start; i < start + length; ++i)
            keys[i] = next++;
    }
    return keys;
}

std::vector<uint32_t> loop(size_t length) {
    std::vector<uint32_t> keys(std::max(kReads, length * 4));
    for (size_t i = 0; i < keys.size(); ++i)
        keys[i] = static_cast<uint32_t>(i % length);
    return keys;
}

// Another set of hot keys each time: how fast what was hot before goes.
std::vector<uint32_t> shifting_zipf(unsigned shifts) {
    std::vector<uint32_t> keys = zipf(kSkew);
    const size_t part = keys.size() / shifts;
    for (size_t i = 0; i < keys.size(); ++i)
        keys[i] = (keys[i] + static_cast<uint32_t>(i / part) * 7919) % kKeys;
    return keys;
}

}  // namespace

std::vector<Pattern> patterns(size_t entries) {
    return {
        {"Zipf 0.8", [] { return zipf(0.8); }},
        {"Zipf 0.99", [] { return zipf(0.99); }},
        {"Zipf 1.2", [] { return zipf(1.2); }},
        {"Zipf 0.99, 10 % once", [] { return zipf_with_once(10); }},
        {"Zipf 0.99, 30 % once", [] { return zipf_with_once(30); }},
        {"Zipf 0.99, new passes of 2 x cache",
         [=] { return zipf_with_passes(entries * 4, entries * 2, false); }},
        {"Zipf 0.99, same pass of 2 x cache",
         [=] { return zipf_with_passes(entries * 4, entries * 2, true); }},
        {"Zipf 0.99, other keys hot 20 times", [] { return shifting_zipf(20); }},
        {"loop of 1.1 x cache", [=] { return loop(entries * 11 / 10); }},
        {"loop of 2 x cache", [=] { return loop(entries * 2); }},
    };
}

}  // namespace nearkey::bench
