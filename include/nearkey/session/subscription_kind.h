// The kinds of what a client can be subscribed to, and the server's words for each.
// MONITOR is one of them, without a name: it is asked for and confirmed as the others are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nearkey {

enum class SubscriptionKind : uint8_t { Channel, Pattern, Shard, Monitor };

struct SubscriptionWords {
    std::string_view subscribe;
    std::string_view unsubscribe;  // empty: there is none
    std::string_view message;      // empty: they are lines
};

// In the order of SubscriptionKind.
inline constexpr std::array<SubscriptionWords, 4> kSubscriptionWords = {{
    {"subscribe", "unsubscribe", "message"},
    {"psubscribe", "punsubscribe", "pmessage"},
    {"ssubscribe", "sunsubscribe", "smessage"},
    {"monitor", "", ""},
}};

inline const SubscriptionWords& words_of(SubscriptionKind kind) {
    return kSubscriptionWords[static_cast<size_t>(kind)];
}

}  // namespace nearkey
