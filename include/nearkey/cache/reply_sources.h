// The sources of stored replies, and whether they can still be believed: a source is one life of
// a connection that is told of changes.
// Owned by NearCache. Items name a slot, not a source: a source moves to a new slot when everything
// is invalidated, so that items in the former are void at once; a slot is used again when no item
// of it is left. The one rule: a slot that is closed is never opened again while it has items.
#pragma once

#include "nearkey/base/check.h"
#include "nearkey/cache/item_table.h"
#include "nearkey/cache/options.h"
#include "nearkey/cache/shared_replies.h"

#include <cstdint>
#include <vector>

namespace nearkey {

class ReplySources {
public:
    using Id = uint32_t;
    static constexpr Id kNone = UINT32_MAX;

    // Both outlive it; `shared` is told of every change of what is proven.
    ReplySources(const NearCacheOptions& options, SharedReplies& shared)
        : options_(options), shared_(shared) {}

    // `proven_ms`: all changes that were made before are known. REQUIRES: not is_short_of_slots().
    Id open(uint64_t proven_ms);
    void renew(Id source, uint64_t proven_ms);
    // Nothing of it is proven until it is renewed with a proof from after `now_ms`.
    void suspend(Id source, uint64_t now_ms);
    void close(Id source);
    // Items from any of them are void. `keep`: find_stale() may serve it. REQUIRES: not
    // is_short_of_slots().
    void void_all(bool keep);
    // Lost items are kept no longer.
    void drop_lost();
    bool is_open(Id source) const { return sources_[source].is_open; }
    // Not every source could have a new slot: void items must go.
    bool is_short_of_slots() const;

    // Items come and go.
    uint16_t add_item(Id source) {
        const uint16_t slot = sources_[source].slot;
        ++slots_[slot].items;
        return slot;
    }
    void remove_item(uint16_t slot) {
        NEARKEY_CHECK(slots_[slot].items > 0);
        if (--slots_[slot].items == 0 && !slots_[slot].is_open) free_slots_.push_back(slot);
    }
    bool is_void(const Item& item, uint64_t now_ms) const {
        return !slots_[item.source].is_open || is_over(item, now_ms);
    }
    // Void, but find_stale() may serve it.
    bool is_kept(const Item& item, uint64_t now_ms) const {
        return slots_[item.source].is_lost && !is_over(item, now_ms) &&
               is_proven_for_stale(item, now_ms);
    }
    // True if every change that its source tells of is known, or younger than max_staleness_ms.
    bool is_proven(const Item& item, uint64_t now_ms) const {
        const Slot& slot = slots_[item.source];
        return !slot.is_suspended && since(slot.proven_ms, now_ms) < options_.max_staleness_ms;
    }
    bool may_be_served_stale(const Item& item, uint64_t now_ms) const {
        return (!is_void(item, now_ms) && is_proven_for_stale(item, now_ms)) ||
               is_kept(item, now_ms);
    }
    uint64_t proven_ms(const Item& item) const { return slots_[item.source].proven_ms; }
    Id source_of(const Item& item) const { return slots_[item.source].source; }

    // For tests: aborts unless there are so many items of each slot.
    void check_items(const std::vector<uint32_t>& of_slot) const;

private:
    struct Slot {
        uint64_t proven_ms;
        uint32_t items;
        Id source;
        bool is_open;
        bool is_lost;       // closed, and kept for find_stale()
        bool is_suspended;  // until its source is renewed
    };
    struct Source {
        uint16_t slot;
        bool is_open;
        uint64_t suspended_ms;  // what was proven until then does not renew it; 0: never was
    };

    // The ticks are cut to 32 bits: what matters is their difference.
    static bool is_over(const Item& item, uint64_t now_ms) {
        return static_cast<int32_t>(item.deadline - tick_of(now_ms)) <= 0;
    }
    bool is_proven_for_stale(const Item& item, uint64_t now_ms) const {
        return now_ms < slots_[item.source].proven_ms + options_.stale_if_unavailable_ms;
    }
    Source& open_one(Id source);
    uint16_t take_slot(Id source, uint64_t proven_ms);
    void share(uint16_t slot);

    const NearCacheOptions& options_;
    SharedReplies& shared_;
    std::vector<Source> sources_;
    std::vector<Slot> slots_;
    std::vector<uint16_t> free_slots_;
    std::vector<Id> free_sources_;
    bool has_lost_ = false;  // a slot may be lost
};

}  // namespace nearkey
