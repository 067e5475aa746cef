#include "key_draws.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace nearkey::bench {

KeyDraws KeyDraws::uniform(uint64_t keys) {
    return KeyDraws(keys);
}

// Slots with less than their share of 1 / keys are filled up by those with more.
KeyDraws KeyDraws::zipf(uint64_t keys, double exponent) {
    KeyDraws draws(keys);
    std::vector<double> share(keys);
    double sum = 0;
    for (uint64_t key = 0; key < keys; ++key)
        sum += share[key] = std::pow(static_cast<double>(key + 1), -exponent);
    std::vector<uint32_t> small;
    std::vector<uint32_t> large;
    for (uint64_t key = 0; key < keys; ++key) {
        share[key] *= static_cast<double>(keys) / sum;
        (share[key] < 1 ? small : large).push_back(static_cast<uint32_t>(key));
    }
    draws.slots_.resize(keys);
    for (uint32_t key = 0; key < keys; ++key)
        draws.slots_[key] = {UINT32_MAX, key};
    while (!small.empty() && !large.empty()) {
        const uint32_t taker = small.back();
        const uint32_t giver = large.back();
        small.pop_back();
        const double own = std::clamp(share[taker], 0.0, 1.0) * 4294967295.0;
        draws.slots_[taker] = {static_cast<uint32_t>(own), giver};
        share[giver] -= 1 - share[taker];
        if (share[giver] < 1) {
            large.pop_back();
            small.push_back(giver);
        }
    }
    return draws;
}

}  // namespace nearkey::bench
