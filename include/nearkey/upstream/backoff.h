// The wait before the next attempt: exponential, with full jitter ("Exponential Backoff And
// Jitter", AWS Architecture Blog, 2015), so that many hosts don't come back in step.
#pragma once

#include <cstdint>
#include <random>

namespace nearkey {

class Backoff {
public:
    Backoff(uint64_t min_ms, uint64_t max_ms, uint64_t seed)
        : min_ms_(min_ms), max_ms_(max_ms), random_(seed) {}

    // Between min_ms and a ceiling that doubles with each call up to max_ms.
    uint64_t next_ms() {
        const uint64_t ceiling = ceiling_ms_ == 0 ? min_ms_ : ceiling_ms_;
        ceiling_ms_ = ceiling >= max_ms_ / 2 ? max_ms_ : ceiling * 2;
        return std::uniform_int_distribution<uint64_t>(min_ms_, ceiling_ms_)(random_);
    }
    void reset() { ceiling_ms_ = 0; }
    void set_limits(uint64_t min_ms, uint64_t max_ms) {
        min_ms_ = min_ms;
        max_ms_ = max_ms;
        reset();
    }

private:
    uint64_t min_ms_;
    uint64_t max_ms_;
    uint64_t ceiling_ms_ = 0;
    std::minstd_rand random_;
};

}  // namespace nearkey
