// A number that one thread writes and any thread may read at any time.
// A read value may be a moment old, never half of one value and half of another. It costs what a
// plain number costs: nothing is locked, for nobody else adds to it.
#pragma once

#include <atomic>
#include <cstdint>

namespace nearkey {

class Count {
public:
    Count() = default;
    Count(const Count& other) : value_(uint64_t{other}) {}
    Count& operator=(const Count& other) { return *this = uint64_t{other}; }
    Count& operator=(uint64_t value) {
        value_.store(value, std::memory_order_relaxed);
        return *this;
    }
    // Reads the number.
    operator uint64_t() const { return value_.load(std::memory_order_relaxed); }

    Count& operator+=(uint64_t more) { return *this = uint64_t{*this} + more; }
    Count& operator-=(uint64_t less) { return *this = uint64_t{*this} - less; }
    Count& operator++() { return *this += 1; }
    Count& operator--() { return *this -= 1; }
    void raise_to(uint64_t value) {
        if (value > *this) *this = value;
    }

private:
    std::atomic<uint64_t> value_{0};
};

}  // namespace nearkey
