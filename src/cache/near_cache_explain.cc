// What is known of a key: for NEARKEY EXPLAIN, and for who watches what is stored.
#include "nearkey/cache/near_cache.h"

#include <algorithm>

namespace nearkey {

std::string_view name_of(InvalidationCause cause) {
    switch (cause) {
        case InvalidationCause::None:
            return "none";
        case InvalidationCause::Push:
            return "push";
        case InvalidationCause::Flush:
            return "flush";
        case InvalidationCause::Write:
            return "write";
        case InvalidationCause::Barrier:
            return "barrier";
        case InvalidationCause::Lost:
            return "lost";
        case InvalidationCause::SwapDb:
            return "swapdb";
        case InvalidationCause::Fields:
            return "fields";
        case InvalidationCause::Asked:
            return "asked";
        case InvalidationCause::Memory:
            return "memory";
        case InvalidationCause::Upstream:
            return "upstream";
        case InvalidationCause::Options:
            return "options";
    }
    return "";
}

NearCache::Explanation NearCache::explain(const CacheQuery& query, uint64_t now_ms) {
    const Hold hold(*this);
    Explanation result{};
    const uint32_t hash = table_.hash_of(query.key, {});
    const LastInvalidation& of_key = last_[hash % kRemembered];
    const bool is_of_key = of_key.cause != InvalidationCause::None && of_key.hash == hash &&
                           of_key.at_ms >= last_of_all_.at_ms;
    const LastInvalidation& last = is_of_key ? of_key : last_of_all_;
    result.cause = last.cause;
    result.invalidated_ms = since(last.at_ms, now_ms);
    result.refused_ms = guard_.off_for_ms(query.key, now_ms);
    result.refusal = !takes_part(query.key)  ? Refusal::Keys
                     : result.refused_ms > 0 ? Refusal::Thrash
                                             : Refusal::None;
    const auto state = keys_.find(query.key);
    const Item* item = find_item(query);
    if (item != nullptr && !is_void(item, now_ms)) {
        const Slot& slot = slots_[item->source];
        result.source = slot.source;
        result.proven_ms = since(slot.proven_ms, now_ms);
        // Another event loop's time may be a little ahead.
        const auto age = static_cast<int32_t>(tick_of(now_ms) - item->filled);
        result.age_ms = static_cast<uint64_t>(std::max(age, 0)) * kItemTickMs;
        result.left_ms = (item->deadline - tick_of(now_ms)) * kItemTickMs;
        result.outcome = is_proven(slot, now_ms) ? Outcome::Hit : Outcome::Unproven;
    } else if (barriers_ > 0 || (state != keys_.end() && state->second.writes > 0)) {
        result.outcome = Outcome::Blocked;
    } else {
        const bool is_pending =
            state != keys_.end() && find_open_fill(state->second, query) != kNone;
        result.outcome = is_pending ? Outcome::Pending : Outcome::Miss;
    }
    return result;
}

NearCache::WatchId NearCache::add_watch() {
    const Hold hold(*this);
    watched_.push_back(nullptr);
    return watched_.size() - 1;
}

void NearCache::watch(WatchId id, const CacheQuery& query) {
    const Hold hold(*this);
    watched_[id] = find_item(query);
}

bool NearCache::is_watched_served(WatchId id, uint64_t now_ms) const {
    const Hold hold(*this);
    const Item* item = watched_[id];
    return item != nullptr && !is_void(item, now_ms) && is_proven(slots_[item->source], now_ms);
}

}  // namespace nearkey
