#include "nearkey/cache/slot_voids.h"

namespace nearkey {

void SlotVoids::add(std::span<const uint16_t> slots, SlotOf slot_of, uint64_t now_ms) {
    slot_of_ = slot_of;
    newest_ = tick_of(now_ms);
    newest_ms_ = now_ms;
    stamps_.resize(kSlots);
    for (const uint16_t slot : slots)
        stamps_[slot] = {newest_, true};
}

void SlotVoids::expire(uint64_t now_ms) {
    if (slot_of_ == nullptr || now_ms < newest_ms_ + kKeptMs) return;
    slot_of_ = nullptr;
    stamps_ = {};
}

}  // namespace nearkey
