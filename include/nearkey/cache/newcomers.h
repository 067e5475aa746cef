// The newest items by the hashes of their identity, oldest first, and the hashes of those that left
// the cache as newcomers: who comes back soon was wanted. NearCache owns it, and decides.
// Hashes, no pointers: items may go at any time, and their records here then lead to nothing.
#pragma once

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
    uint32_t pop();
    size_t size() const { return hashes_.size(); }
    const std::deque<uint32_t>& hashes() const { return hashes_; }

    // Remembers it until another one takes its place, after about `entries` of them.
    void remember(uint32_t hash, size_t entries);
    // Whether it was remembered. It is not any more.
    bool recall(uint32_t hash);

    // Forgets what it remembers if that is for far more entries than these.
    void shrink(size_t entries);

    size_t bytes() const { return hashes_.size() * sizeof(uint32_t) + places_ * sizeof(uint16_t); }

private:
    struct Free {
        void operator()(uint16_t* memory) const { free(memory); }
    };

    size_t place_of(uint32_t hash) const { return (uint64_t{hash} * places_) >> 32; }

    std::deque<uint32_t> hashes_;
    // One fingerprint a place, 0 for none; from calloc, so that what is not used costs nothing.
    std::unique_ptr<uint16_t[], Free> fingerprints_;
    size_t places_ = 0;
};

}  // namespace nearkey
