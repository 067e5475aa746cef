#include "nearkey/session/key_hash.h"

#include "nearkey/base/random.h"

#include <bit>

namespace nearkey {

namespace {

// SipHash-2-4 of eight bytes (Aumasson and Bernstein, 2012).
uint64_t siphash(const std::array<uint64_t, 2>& key, uint64_t word) {
    uint64_t v0 = key[0] ^ 0x736f6d6570736575;
    uint64_t v1 = key[1] ^ 0x646f72616e646f6d;
    uint64_t v2 = key[0] ^ 0x6c7967656e657261;
    uint64_t v3 = key[1] ^ 0x7465646279746573;
    const auto rounds = [&](int count) {
        for (int i = 0; i < count; ++i) {
            v0 += v1;
            v1 = std::rotl(v1, 13) ^ v0;
            v0 = std::rotl(v0, 32);
            v2 += v3;
            v3 = std::rotl(v3, 16) ^ v2;
            v0 += v3;
            v3 = std::rotl(v3, 21) ^ v0;
            v2 += v1;
            v1 = std::rotl(v1, 17) ^ v2;
            v2 = std::rotl(v2, 32);
        }
    };
    constexpr uint64_t kLength = uint64_t{8} << 56;
    for (const uint64_t block : {word, kLength}) {
        v3 ^= block;
        rounds(2);
        v0 ^= block;
    }
    v2 ^= 0xff;
    rounds(4);
    return v0 ^ v1 ^ v2 ^ v3;
}

}  // namespace

KeyHash::KeyHash() {
    seed_ = random_word();
    secret_ = {random_word(), random_word()};
}

std::string KeyHash::shown(uint64_t hash) const {
    if (hash == 0) return "";
    constexpr std::string_view kDigits = "0123456789abcdef";
    uint64_t word = siphash(secret_, hash);
    std::string text(16, '0');
    for (size_t i = text.size(); i-- > 0; word >>= 4)
        text[i] = kDigits[word & 15];
    return text;
}

}  // namespace nearkey
