#include "key_draws.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

using nearkey::bench::KeyDraws;

namespace {

std::vector<double> shares(const KeyDraws& draws, uint64_t keys, int count) {
    std::vector<double> share(keys);
    uint64_t state = 42;
    for (int i = 0; i < count; ++i)
        share.at(draws.draw(state)) += 1.0 / count;
    return share;
}

}  // namespace

TEST_CASE("key draws: Zipf's law holds for the first keys and for the tail as a whole") {
    constexpr uint64_t kKeys = 1000;
    const std::vector<double> share = shares(KeyDraws::zipf(kKeys, 1.0), kKeys, 2'000'000);
    double sum = 0;
    for (uint64_t key = 0; key < kKeys; ++key)
        sum += 1.0 / static_cast<double>(key + 1);
    for (uint64_t key = 0; key < 10; ++key)
        CHECK(share[key] * sum * static_cast<double>(key + 1) == doctest::Approx(1).epsilon(0.03));
    double tail = 0;
    double tail_expected = 0;
    for (uint64_t key = 500; key < kKeys; ++key) {
        tail += share[key];
        tail_expected += 1.0 / static_cast<double>(key + 1) / sum;
    }
    CHECK(tail == doctest::Approx(tail_expected).epsilon(0.02));
}

TEST_CASE("key draws: a steeper law draws the first key more often") {
    const double flat = shares(KeyDraws::zipf(1000, 0.5), 1000, 200'000)[0];
    const double steep = shares(KeyDraws::zipf(1000, 1.5), 1000, 200'000)[0];
    CHECK(steep > 4 * flat);
}

TEST_CASE("key draws: uniform ones reach every key alike") {
    const std::vector<double> share = shares(KeyDraws::uniform(100), 100, 1'000'000);
    for (const double one : share)
        CHECK(one == doctest::Approx(0.01).epsilon(0.06));
}

TEST_CASE("key draws: of a single key there is no choice") {
    uint64_t state = 7;
    CHECK(KeyDraws::uniform(1).draw(state) == 0);
    CHECK(KeyDraws::zipf(1, 1.0).draw(state) == 0);
}
