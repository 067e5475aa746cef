// Why Valkey can't be reached, in words for an operator: the reason as it came from the system,
// from OpenSSL or from the server, and what to do about it. One table of what is known; pure
// functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

// A command that Valkey does not allow nearkey's user is tried again so much later, since rights
// may change: each refusal is an entry in its ACL LOG.
inline constexpr uint64_t kRefusedAgainMs = 60'000;

// "REASON; WHAT TO DO", without the reason's period, or the reason alone where nothing is known to
// help.
std::string with_advice(const std::string& reason);

// Names the server that answers our handshake with these bytes, which are no reply of Valkey's.
std::string name_stranger(std::string_view first_bytes);

}  // namespace nearkey
