// Which key a request names: one of a fixed number, all alike or by Zipf's law, where the key
// number k is drawn in proportion to 1 / (k + 1)^exponent. A draw is one look into a table
// (the alias method of Walker and Vose), which all threads share.
#pragma once

#include <cstdint>
#include <vector>

namespace nearkey::bench {

// xorshift64 (Marsaglia 2003); the state is never 0.
inline uint64_t next_random(uint64_t& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

class KeyDraws {
public:
    // REQUIRES: 0 < keys <= 2^32 - 1.
    static KeyDraws uniform(uint64_t keys);
    static KeyDraws zipf(uint64_t keys, double exponent);

    uint64_t draw(uint64_t& state) const {
        const uint64_t random = next_random(state);
        const uint64_t slot = ((random >> 32) * keys_) >> 32;
        if (slots_.empty()) return slot;
        const Slot& found = slots_[slot];
        return static_cast<uint32_t>(random) < found.own_share ? slot : found.alias;
    }

private:
    // The slot's own key has so much of 2^32, the alias has the rest.
    struct Slot {
        uint32_t own_share;
        uint32_t alias;
    };
    explicit KeyDraws(uint64_t keys) : keys_(keys) {}

    uint64_t keys_;
    std::vector<Slot> slots_;  // empty: uniform
};

}  // namespace nearkey::bench
