// The newest items by the hashes of their identity, oldest first, and the hashes of those that left
// the cache as newcomers: one that comes back soon was wanted. NearCache owns it, and decides.
// Hashes, no pointers: items may go at any time, and their records here then lead to nothing.
#pragma once

#include "nearkey/base/check.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>

namespace nearkey {

class Newcomers {
public:
    void push(uint32_t hash) { hashes_.push_back(hash); }
    // REQUIRES: not empty.
    uint32_t pop() {
        NEARKEY_CHECK(!hashes_.empty());
        const uint32_t hash = hashes_.front();
        hashes_.pop_front();
        return hash;
    }
    size_t size() const { return hashes_.size(); }
    const std::deque<uint32_t>& hashes() const { return hashes_; }

    // Remembers it until another one takes its place, after about `entries` of them.
    void remember(uint32_t hash, size_t entries) {
        const size_t wanted = std::max(entries, kPlacesMin);
        if (wanted > places_ * 2 || wanted < places_ / 4) {
            fingerprints_.reset(static_cast<uint16_t*>(calloc(wanted, sizeof(uint16_t))));
            NEARKEY_CHECK(fingerprints_ != nullptr);
            places_ = wanted;
        }
        fingerprints_[place_of(hash)] = fingerprint_of(hash);
    }
    // True if it was remembered; it is forgotten now.
    bool recall(uint32_t hash) {
        if (places_ == 0 || fingerprints_[place_of(hash)] != fingerprint_of(hash)) return false;
        fingerprints_[place_of(hash)] = 0;
        return true;
    }

    // Forgets what it remembers if that is for far more entries than these.
    void shrink(size_t entries) {
        if (std::max(entries, kPlacesMin) >= places_ / 4) return;
        fingerprints_.reset();
        places_ = 0;
    }

    size_t bytes() const { return hashes_.size() * sizeof(uint32_t) + places_ * sizeof(uint16_t); }

private:
    struct Free {
        void operator()(uint16_t* memory) const { free(memory); }
    };

    static constexpr size_t kPlacesMin = 256;

    // The place is from the upper bits.
    static uint16_t fingerprint_of(uint32_t hash) { return static_cast<uint16_t>(hash | 1); }
    size_t place_of(uint32_t hash) const { return (uint64_t{hash} * places_) >> 32; }

    std::deque<uint32_t> hashes_;
    // One fingerprint a place, 0 for none; from calloc, so that what is not used costs nothing.
    std::unique_ptr<uint16_t[], Free> fingerprints_;
    size_t places_ = 0;
};

}  // namespace nearkey
