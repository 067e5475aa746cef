// The way of a read to a replica, at a listener that asks for it. Owned by SharedRoute, from the
// first such read on.
// The one rule: what one client reads and writes of a slot keeps its order. While it is owed a
// reply by a replica, its other reads of the slot go to the same one, and all else about the slot
// waits (Desk::is_in_order); while it is owed the reply to a write, it reads from no replica.
#pragma once

#include "nearkey/session/desk.h"

#include <array>
#include <cstdint>
#include <optional>

namespace nearkey {

// Why a command's reply does not come from a replica.
enum class ReplicaRefusal : uint8_t {
    None,
    NotAsked,   // its listener says nothing of replicas
    NoRead,     // it is none that a replica may answer
    Stored,     // its reply may be stored, and so is a primary's
    Parts,      // it has keys of several slots
    Busy,       // the client is owed something that it must not change places with
    NoReplica,  // as in ReplicaHindrance
    Away,
    Unproven,
    OwnWrite,
};
std::string_view in_words(ReplicaRefusal refusal);

class ReplicaRoute {
public:
    explicit ReplicaRoute(Desk& desk) : desk_(desk) {}

    // Nothing: it goes to a primary. REQUIRES: a cluster, and the call is of one slot.
    std::optional<Executed> forward(const Call& call);
    // Where it would go now.
    struct Choice {
        ReplicaRefusal refusal;
        uint16_t slot = 0;
        Replicas::Choice replica{};
    };
    Choice choose(const Call& call);

private:
    static constexpr size_t kBits = Desk::kReplicaBits;

    Desk& desk_;
    std::array<uint16_t, kBits> replicas_{};  // that owe replies, by the bits of desk_
};

}  // namespace nearkey
