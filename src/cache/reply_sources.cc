#include "nearkey/cache/reply_sources.h"

#include "nearkey/base/check.h"

#include <utility>

namespace nearkey {

namespace {
constexpr size_t kSlotsMax = UINT16_MAX;
}  // namespace

ReplySources::Id ReplySources::open(uint64_t proven_ms) {
    Id id = static_cast<Id>(sources_.size());
    if (free_sources_.empty()) {
        sources_.push_back({});
    } else {
        id = free_sources_.back();
        free_sources_.pop_back();
    }
    sources_[id] = {take_slot(id, proven_ms), true, 0};
    return id;
}

ReplySources::Source& ReplySources::open_one(Id source) {
    NEARKEY_CHECK(source < sources_.size() && sources_[source].is_open);
    return sources_[source];
}

void ReplySources::renew(Id source, uint64_t proven_ms) {
    const Source& renewed = open_one(source);
    if (renewed.suspended_ms != 0 && proven_ms <= renewed.suspended_ms) return;
    slots_[renewed.slot].proven_ms = proven_ms;
    slots_[renewed.slot].is_suspended = false;
    share(renewed.slot);
}

// Tells readers of shared memory what is proven of the slot.
void ReplySources::share(uint16_t slot) {
    const Slot& told = slots_[slot];
    shared_.set_source(slot, told.is_open && !told.is_suspended ? told.proven_ms : 0);
}

void ReplySources::suspend(Id source, uint64_t now_ms) {
    Source& suspended = open_one(source);
    suspended.suspended_ms = now_ms;
    slots_[suspended.slot].is_suspended = true;
    share(suspended.slot);
}

void ReplySources::close(Id source) {
    Source& closed = open_one(source);
    closed.is_open = false;
    Slot& slot = slots_[closed.slot];
    slot.is_open = false;
    share(closed.slot);
    slot.is_lost = options_.stale_if_unavailable_ms > 0;
    has_lost_ |= slot.is_lost;
    if (slot.items == 0) free_slots_.push_back(closed.slot);
    free_sources_.push_back(source);
}

void ReplySources::void_all(bool keep) {
    has_lost_ |= keep;
    for (Id id = 0; id < sources_.size(); ++id) {
        Source& source = sources_[id];
        if (!source.is_open || slots_[source.slot].items == 0) continue;
        const Slot former = slots_[source.slot];
        slots_[source.slot].is_open = false;
        slots_[source.slot].is_lost = keep;
        share(source.slot);
        source.slot = take_slot(id, former.proven_ms);
        slots_[source.slot].is_suspended = former.is_suspended;
        share(source.slot);
    }
}

void ReplySources::drop_lost() {
    if (!std::exchange(has_lost_, false)) return;
    for (Slot& slot : slots_)
        slot.is_lost = false;
}

bool ReplySources::is_short_of_slots() const {
    return free_slots_.size() + (kSlotsMax - slots_.size()) <= sources_.size();
}

uint16_t ReplySources::take_slot(Id source, uint64_t proven_ms) {
    if (free_slots_.empty()) {
        NEARKEY_CHECK(slots_.size() < kSlotsMax);
        free_slots_.push_back(static_cast<uint16_t>(slots_.size()));
        slots_.push_back({});
    }
    const uint16_t slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = {proven_ms, 0, source, true, false, false};
    share(slot);
    return slot;
}

void ReplySources::check_items(const std::vector<uint32_t>& of_slot) const {
    NEARKEY_CHECK(of_slot.size() <= slots_.size());
    for (size_t i = 0; i < slots_.size(); ++i)
        NEARKEY_CHECK((i < of_slot.size() ? of_slot[i] : 0) == slots_[i].items);
}

}  // namespace nearkey
