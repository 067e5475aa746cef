// Makes one reply of the replies to a command's parts, from their bytes: RESP2 or RESP3, as they
// came. The one rule: nothing of a reply is trusted; one of another form than expected is told.
#pragma once

#include "nearkey/resp/spread_rules.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// The replies to the parts of one command, in their order, each whole. None is an error, except
// with Gather::One.
struct PartReplies {
    Gather how;
    std::span<const std::string_view> replies;
    // Gather::Values: of each key, in the order of the keys, the part that it is in.
    std::span<const uint16_t> part_of;
    uint64_t draw = 0;  // Gather::Any: a random number
};

// One reply: `head`, and the pieces behind it, which are views into the replies.
struct GatheredReply {
    std::string head;
    std::vector<std::string_view> pieces;
};

// Nothing: a reply has not the form that the command's parts have. REQUIRES: there are replies.
std::optional<GatheredReply> gather(const PartReplies& parts);

}  // namespace nearkey
