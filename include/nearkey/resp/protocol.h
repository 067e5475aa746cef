// The version of RESP that a connection speaks, as HELLO numbers it.
// The one rule: bytes of one version never reach a client of the other.
#pragma once

#include <cstdint>

namespace nearkey {

enum class Protocol : uint8_t { Resp2 = 2, Resp3 = 3 };

constexpr int number_of(Protocol protocol) {
    return static_cast<int>(protocol);
}

}  // namespace nearkey
