// Who leaves when there is no room, and who is void already.
#include "nearkey/cache/near_cache.h"

namespace nearkey {

namespace {
constexpr size_t kNewcomersShare = 10;  // one in so many entries, while others must go
constexpr size_t kRecordsSpare = 64;
}  // namespace

// A policy after S3-FIFO (the header says why). Newcomers leave in the order in which they came;
// who stays is under the hand of a clock that goes round the table: who was hit has another turn.
void NearCache::make_room(uint64_t now_ms) {
    // The newcomers once and four rounds of the hand, with some of the newcomers between, take
    // everything: nothing has more than three uses.
    for (size_t steps = 8 * table_.buckets() + 8 * entries_ + newcomers_.size();
         steps > 0 && entries_ > 0 && bytes_held() > options_.memory; --steps) {
        if (has_newcomers_to_judge()) {
            judge_newcomer(now_ms);
        } else {
            step_hand(now_ms);
        }
    }
}

// While they are more than their share. All of them are when nothing else is left.
bool NearCache::has_newcomers_to_judge() const {
    return newcomers_.size() * kNewcomersShare > entries_;
}

// Who was hit as a newcomer stays.
void NearCache::judge_newcomer(uint64_t now_ms) {
    Item* item = take_newcomer();
    if (item == nullptr) return;
    const bool is_gone = is_void(item, now_ms);
    if (!is_gone && (item->flags & Item::kUsesMask) != 0) {
        item->flags &= static_cast<uint8_t>(~Item::kUsesMask);
        return;
    }
    if (!is_gone) {
        newcomers_.remember(table_.hash_of(item), entries_);
        ++metrics_.near_cache_evictions_total;
    }
    erase(item);
}

// The oldest, which is none any more; null if it has gone already.
Item* NearCache::take_newcomer() {
    const uint32_t hash = newcomers_.pop();
    Item* item = table_.chain(hash);
    while (item != nullptr && !(item->has(Item::kNew) && table_.hash_of(item) == hash))
        item = item->next;
    if (item != nullptr) item->flags &= static_cast<uint8_t>(~Item::kNew);
    return item;
}

// While there is room, all are newcomers and nobody is judged; but records whose items are gone
// must not pile up, so the oldest just stay. Two for each that comes or goes: a surplus ends.
void NearCache::trim_newcomers() {
    for (int i = 0; i < 2 && newcomers_.size() > entries_ + entries_ / 4 + kRecordsSpare; ++i)
        take_newcomer();
}

void NearCache::step_hand(uint64_t now_ms) {
    if (hand_ >= table_.buckets()) hand_ = 0;
    for (Item* item = table_.chain_at(hand_); item != nullptr;) {
        const bool is_safe = item->has(Item::kHead) || item->has(Item::kNew);
        if (is_safe) {
            item = item->next;
        } else if (!is_void(item, now_ms) && (item->flags & Item::kUsesMask) != 0) {
            --item->flags;
            item = item->next;
        } else {
            if (!is_void(item, now_ms)) ++metrics_.near_cache_evictions_total;
            // It may take its head with it, which may be the next one: the rest has its turn later.
            erase(item);
            return;
        }
    }
    ++hand_;
}

void NearCache::sweep(size_t buckets, uint64_t now_ms) {
    const Hold hold(*this);
    guard_.expire(now_ms);
    for (; buckets > 0 && entries_ > 0; --buckets) {
        if (hand_ >= table_.buckets()) hand_ = 0;
        Item* item = table_.chain_at(hand_);
        while (item != nullptr &&
               (item->has(Item::kHead) || !is_void(item, now_ms) || is_kept(item, now_ms)))
            item = item->next;
        if (item == nullptr) {
            ++hand_;
        } else {
            erase(item);
        }
    }
}

}  // namespace nearkey
