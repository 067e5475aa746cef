// A map of the cluster on its way into the Cluster: the reply is read, its servers are looked up
// among the members, and its slots are compared with what is known.
//
//   Reading ──all of it──▶ Members ──all servers──▶ Slots ──all slots──▶ Done
//      └──it can't be used, or is not to be believed──▶ Refused
//
// Owned by Cluster, which calls for one piece a turn: a thousand primaries would take
// milliseconds. The one rule: commands run between two pieces, and what a server says of a slot
// then is newer than the map (Cluster::changed()).
#pragma once

#include "nearkey/upstream/slot_map.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nearkey {

class MapUpdate {
public:
    enum class Stage : uint8_t { Reading, Refused, Members, Slots, Done };
    static constexpr uint16_t kNobody = UINT16_MAX;

    // As for SlotMapReader.
    MapUpdate(std::string reply, const std::string& asked_host)
        : reader_(std::move(reply), asked_host) {}

    Stage stage() const { return stage_; }
    // REQUIRES: as in SlotMapReader.
    const std::string& refusal() const { return reader_.refusal(); }
    const SlotMap& map() const { return map_; }
    // Of the members, by their servers. REQUIRES: all were looked up.
    const std::vector<uint16_t>& numbers() const { return numbers_; }
    SlotMap take_map() { return std::move(map_); }

    // The next ranges. REQUIRES: Reading.
    void read();
    // It is not to be believed.
    void refuse() { stage_ = Stage::Refused; }
    struct Found {
        uint16_t number;  // kNobody: it could not become a member
        bool is_dialled;  // it is new, or somewhere else now
    };
    // The next servers: where they are reached, and `find(server)`, which returns Found, of each
    // that owns slots and can be dialled. REQUIRES: Members.
    template <class Find>
    void find_members(const AddressMap& addresses, Find find);
    // The next slots: `compare(slot, number, server)`, those of its owner; kNobody and null: it has
    // none. REQUIRES: Slots.
    template <class Compare>
    void compare_slots(Compare compare);

private:
    // Each is a fraction of a millisecond.
    static constexpr size_t kRangesPerTurn = 250;
    static constexpr size_t kServersPerTurn = 500;
    static constexpr size_t kDialledPerTurn = 16;
    static constexpr size_t kSlotsPerTurn = 2048;

    Stage stage_ = Stage::Reading;
    SlotMapReader reader_;
    SlotMap map_;
    std::vector<uint16_t> numbers_;  // of the members, by the servers that were looked at
    size_t slots_ = 0;               // so many were compared
};

template <class Find>
void MapUpdate::find_members(const AddressMap& addresses, Find find) {
    const size_t end = std::min(numbers_.size() + kServersPerTurn, map_.servers().size());
    size_t dialled = 0;
    while (numbers_.size() < end && dialled < kDialledPerTurn) {
        const SlotMap::Server& server = map_.translate(numbers_.size(), addresses);
        const bool is_wanted = server.slots > 0 && server.endpoint.port != 0;
        const Found found = is_wanted ? find(server) : Found{kNobody, false};
        numbers_.push_back(found.number);
        dialled += found.is_dialled ? 1 : 0;
    }
    if (numbers_.size() == map_.servers().size()) stage_ = Stage::Slots;
}

template <class Compare>
void MapUpdate::compare_slots(Compare compare) {
    const size_t end = std::min<size_t>(slots_ + kSlotsPerTurn, kSlots);
    for (; slots_ < end; ++slots_) {
        const auto slot = static_cast<uint16_t>(slots_);
        const SlotMap::Server* const server = map_.owner_of(slot);
        compare(slot, server == nullptr ? kNobody : numbers_[map_.number_of(*server)], server);
    }
    if (slots_ == kSlots) stage_ = Stage::Done;
}

}  // namespace nearkey
