// The place where a command runs in a Valkey Cluster: its first key decides, by the server's own
// key specifications.
#pragma once

#include "nearkey/resp/command_table.h"
#include "nearkey/resp/slot.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace nearkey {

struct Placement {
    enum class Where : uint8_t {
        Slot,       // with the owner of the slot; its keys may be of others, which the server says
        Anywhere,   // it has no keys
        EveryNode,  // one server's answer would not be the cluster's
        Nowhere,    // a client that sees one server has no use for it: CLUSTER
    };
    Where where;
    uint16_t slot = 0;
};

// `spec`: null if the server does not know the command. `keys` is scratch.
Placement place(const CommandSpec* spec, const CommandView& command,
                std::vector<std::string_view>& keys);

}  // namespace nearkey
