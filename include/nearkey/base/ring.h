// A queue in one power-of-two array: push at the back, pop at the front, index from the front.
// For small trivially copyable records on the hot path. Keeps its memory until shrink().
#pragma once

#include "nearkey/base/check.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <memory>
#include <type_traits>

namespace nearkey {

template <class T>
class Ring {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    size_t capacity() const { return capacity_; }

    T& operator[](size_t index) {
        NEARKEY_CHECK(index < size_);
        return items_[(first_ + index) & (capacity_ - 1)];
    }
    const T& operator[](size_t index) const {
        NEARKEY_CHECK(index < size_);
        return items_[(first_ + index) & (capacity_ - 1)];
    }
    T& front() {
        NEARKEY_CHECK(size_ > 0);
        return items_[first_];
    }
    T& back() { return (*this)[size_ - 1]; }

    // Returns its copy in the queue.
    T& push_back(const T& item) {
        if (size_ == capacity_) grow();
        T& place = items_[(first_ + size_++) & (capacity_ - 1)];
        place = item;
        return place;
    }
    void pop_front() {
        NEARKEY_CHECK(size_ > 0);
        first_ = (first_ + 1) & (capacity_ - 1);
        --size_;
    }
    void clear() { first_ = size_ = 0; }
    // Keeps no more memory than what is queued needs.
    void shrink() {
        if (size_ == 0) {
            *this = Ring();
        } else if (const size_t capacity = std::max(std::bit_ceil(size_), kFirstCapacity);
                   capacity < capacity_) {
            move_to(capacity);
        }
    }

    // The bytes that it holds, once much room that nothing is queued in is given back.
    size_t trimmed_bytes() {
        if (size_ == 0 && capacity_ > kCapacityKept) shrink();
        return capacity_ * sizeof(T);
    }

private:
    static constexpr size_t kFirstCapacity = 4;
    static constexpr size_t kCapacityKept = 4096;

    [[gnu::noinline]] void grow() { move_to(capacity_ == 0 ? kFirstCapacity : capacity_ * 2); }
    // REQUIRES: a power of two, not less than size().
    void move_to(size_t capacity) {
        auto items = std::make_unique_for_overwrite<T[]>(capacity);
        for (size_t i = 0; i < size_; ++i)
            items[i] = (*this)[i];
        items_ = std::move(items);
        capacity_ = capacity;
        first_ = 0;
    }

    std::unique_ptr<T[]> items_;
    size_t capacity_ = 0;
    size_t first_ = 0;
    size_t size_ = 0;
};

}  // namespace nearkey
