// The slot of a key in Valkey Cluster, by its specification: CRC-16/XMODEM of the key, or of its
// hash tag, modulo 16,384.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

inline constexpr uint16_t kSlots = 16384;

// The part of a key that decides about its slot: what stands between the first '{' and the first
// '}' behind it, if that is anything; else the whole key. A view into it.
std::string_view hash_tag_of(std::string_view key);

uint16_t slot_of(std::string_view key);

// A text t, without braces, for which slot_of(t) and slot_of("...{t}...") are this slot.
std::string tag_of(uint16_t slot);

}  // namespace nearkey
