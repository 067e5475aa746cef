// What a string takes beside itself.
// For the accounts of clients, whose names and keys can be as long as any argument.
#pragma once

#include <cstddef>
#include <string>

namespace nearkey {

inline size_t heap_bytes(const std::string& text) {
    constexpr size_t kShort = 16;  // A shorter one has no memory of its own.
    return text.capacity() < kShort ? 0 : text.capacity();
}

}  // namespace nearkey
