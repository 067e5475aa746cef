// Hashes for keys whose names must not be shown: in /hotkeys, in the slow log, in a log line. The
// same key has the same text everywhere in one process, and another in the next.
// Owned by Daemon. `hash()` is cheap and for memory only; `shown()` of it is for the eye, keyed by
// a secret, so that nobody finds a name by trying.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class KeyHash {
public:
    // Random seed and secret.
    KeyHash();

    // Never 0, which stands for "no key".
    uint64_t hash(std::string_view key) const {
        const uint64_t hash = XXH3_64bits_withSeed(key.data(), key.size(), seed_);
        return hash == 0 ? 1 : hash;
    }
    // 16 hexadecimal digits; empty for 0.
    std::string shown(uint64_t hash) const;

private:
    uint64_t seed_;
    std::array<uint64_t, 2> secret_;
};

}  // namespace nearkey
