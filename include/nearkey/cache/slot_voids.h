// Slots of a Valkey Cluster that came to another server: what was stored of them before is void.
// Owned by NearCache. Items do not grow by it: an item is void if it was stored in the tick (16 ms)
// in which its slot moved last, or earlier. Those that were stored later are not looked at.
#pragma once

#include "nearkey/cache/item_table.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace nearkey {

class SlotVoids {
public:
    static constexpr size_t kSlots = 16384;
    using SlotOf = uint16_t (*)(std::string_view key);

    void add(std::span<const uint16_t> slots, SlotOf slot_of, uint64_t now_ms);
    bool is_void(std::string_view key, const Item& item) const {
        if (slot_of_ == nullptr || is_later(item.filled, newest_)) return false;
        const Stamp& stamp = stamps_[slot_of_(key)];
        return stamp.is_set && !is_later(item.filled, stamp.tick);
    }
    // True if its slot moved in the tick in which any did last. REQUIRES: any did.
    bool is_among_newest(std::string_view key) const {
        const Stamp& stamp = stamps_[slot_of_(key)];
        return stamp.is_set && stamp.tick == newest_;
    }
    // Forgets slots that moved so long ago that no item is as old: ticks would come round again.
    void expire(uint64_t now_ms);

private:
    static constexpr uint64_t kKeptMs = uint64_t{1000} * 60 * 60 * 24 * 180;
    struct Stamp {
        uint32_t tick = 0;
        bool is_set = false;
    };
    static bool is_later(uint32_t tick, uint32_t than) {
        return static_cast<int32_t>(tick - than) > 0;
    }

    SlotOf slot_of_ = nullptr;  // null: no slot has moved
    uint32_t newest_ = 0;
    uint64_t newest_ms_ = 0;
    std::vector<Stamp> stamps_;
};

}  // namespace nearkey
