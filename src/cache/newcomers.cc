#include "nearkey/cache/newcomers.h"

#include "nearkey/base/check.h"

#include <algorithm>

namespace nearkey {

namespace {

constexpr size_t kPlacesMin = 256;

// The place is from the upper bits.
uint16_t fingerprint_of(uint32_t hash) {
    return static_cast<uint16_t>(hash | 1);
}

}  // namespace

uint32_t Newcomers::pop() {
    CHECK(!hashes_.empty());
    const uint32_t hash = hashes_.front();
    hashes_.pop_front();
    return hash;
}

void Newcomers::remember(uint32_t hash, size_t entries) {
    const size_t wanted = std::max(entries, kPlacesMin);
    if (wanted > places_ * 2 || wanted < places_ / 4) {
        fingerprints_.reset(static_cast<uint16_t*>(calloc(wanted, sizeof(uint16_t))));
        CHECK(fingerprints_ != nullptr);
        places_ = wanted;
    }
    fingerprints_[place_of(hash)] = fingerprint_of(hash);
}

void Newcomers::shrink(size_t entries) {
    if (std::max(entries, kPlacesMin) >= places_ / 4) return;
    fingerprints_.reset();
    places_ = 0;
}

bool Newcomers::recall(uint32_t hash) {
    if (places_ == 0 || fingerprints_[place_of(hash)] != fingerprint_of(hash)) return false;
    fingerprints_[place_of(hash)] = 0;
    return true;
}

}  // namespace nearkey
