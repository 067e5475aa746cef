// Seeds that nobody can guess.
// The system makes them, so not for what is drawn often.
#pragma once

#include <cstdint>
#include <random>

namespace nearkey {

inline uint64_t random_word() {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
}

}  // namespace nearkey
