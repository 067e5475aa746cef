#include "nearkey/cache/near_cache.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {

bool is_same(const Item* item, const CacheQuery& query) {
    return item->command == query.command && item->database == query.database &&
           !item->has(Item::kHead) && item->key() == query.key &&
           item->arguments() == query.arguments;
}

Count Metrics::*counter_of(InvalidationCause cause) {
    switch (cause) {
        case InvalidationCause::Flush:
            return &Metrics::near_cache_clears_flush_total;
        case InvalidationCause::Lost:
            return &Metrics::near_cache_clears_lost_total;
        case InvalidationCause::SwapDb:
            return &Metrics::near_cache_clears_swapdb_total;
        case InvalidationCause::Fields:
            return &Metrics::near_cache_clears_fields_total;
        case InvalidationCause::Asked:
            return &Metrics::near_cache_clears_asked_total;
        case InvalidationCause::Memory:
            return &Metrics::near_cache_clears_memory_total;
        default:
            return &Metrics::near_cache_clears_barrier_total;
    }
}

}  // namespace

NearCache::NearCache(const NearCacheOptions& options, Metrics& metrics, uint64_t seed)
    : options_(options),
      metrics_(metrics),
      table_(seed),
      keys_(0, KeyHash{table_}, KeyEqual{table_}),
      guard_(metrics) {
    metrics_.near_cache_max_bytes = options.memory;
    report_size();
}

NearCache::~NearCache() = default;

NearCache::Found NearCache::find(const CacheQuery& query, uint64_t now_ms) {
    const Hold hold(*this);
    if (Item* item = find_item(query); item != nullptr) {
        const Slot& slot = slots_[item->source];
        if (!is_void(item, now_ms)) {
            if (!is_proven(slot, now_ms) && !is_broken(Rule::Lease)) {
                ++metrics_.near_cache_unproven_total;
                return {Outcome::Unproven, {}, 0};
            }
            if ((item->flags & Item::kUsesMask) != Item::kUsesMask) ++item->flags;
            ++metrics_.near_cache_hits_total;
            return {Outcome::Hit, item->reply(), 0};
        }
        if (!is_kept(item, now_ms)) erase(item);
    }
    ++metrics_.near_cache_misses_total;
    if (barriers_ > 0) return {Outcome::Blocked, {}, 0};
    const auto state = keys_.find(query.key);
    if (state == keys_.end()) return {Outcome::Miss, {}, 0};
    if (state->second.writes > 0) return {Outcome::Blocked, {}, 0};
    const uint32_t fill = find_open_fill(state->second, query);
    if (fill == kNone) return {Outcome::Miss, {}, 0};
    return {Outcome::Pending, {}, uint64_t{fills_[fill].generation} << 32 | fill};
}

void NearCache::expect(std::string_view key, Expected& expected) const {
    const Hold hold(*this);
    const Item* const first = table_.chain(expected.before);
    if (first != nullptr) ItemTable::prefetch(first->next);
    expected.before = expected.last;
    ItemTable::prefetch(table_.chain(expected.last));
    expected.last = table_.hash_of(key, {});
    table_.prefetch_chain(expected.last);
}

Item* NearCache::find_item(const CacheQuery& query) {
    Item* item = table_.chain(table_.hash_of(query.key, query.arguments));
    while (item != nullptr && !nearkey::is_same(item, query))
        item = item->next;
    return item;
}

Item* NearCache::find_head(std::string_view key) {
    Item* item = table_.chain(table_.hash_of(key, {}));
    while (item != nullptr && !(item->has(Item::kHead) && item->key() == key))
        item = item->next;
    return item;
}

size_t NearCache::bytes() const {
    return metrics_.near_cache_bytes;
}

size_t NearCache::entries() const {
    const Hold hold(*this);
    return entries_;
}

bool NearCache::is_idle() const {
    const Hold hold(*this);
    return entries_ == 0 && keys_.empty();
}

bool NearCache::is_void(const Item* item, uint64_t now_ms) const {
    // The ticks are cut to 32 bits: what matters is their difference.
    return !slots_[item->source].is_open ||
           static_cast<int32_t>(item->deadline - tick_of(now_ms)) <= 0;
}

void NearCache::store(const Fill& fill, std::string_view reply, uint64_t deadline_ms,
                      uint64_t now_ms) {
    const std::string_view key = fill.key->first;
    const ItemContent content{
        .key = key,
        .arguments = fill.arguments,
        .reply = reply,
        .flags = fill.arguments.empty() ? uint8_t{0} : uint8_t{Item::kArguments},
    };
    const uint64_t end_ms = std::min(deadline_ms, now_ms + options_.max_age_ms);
    const bool fits = key.size() <= kNamePartMax && fill.arguments.size() <= kNamePartMax &&
                      reply.size() <= options_.value_max;
    if (!fits || static_cast<int32_t>(tick_of(end_ms) - tick_of(now_ms)) <= 0) {
        ++metrics_.near_cache_not_stored_total;
        return;
    }
    Item* item = ItemTable::make(content);
    item->filled = tick_of(now_ms);
    item->deadline = tick_of(end_ms);
    item->source = sources_[fill.source].slot;
    item->command = fill.command;
    item->database = fill.database;
    const uint32_t hash = table_.insert(item);
    ++slots_[item->source].entries;
    ++entries_;
    if (item->has(Item::kArguments)) link(item, key);
    ++metrics_.near_cache_stored_total;
    if (!newcomers_.recall(hash)) {
        item->flags |= Item::kNew;
        newcomers_.push(hash);
    }
    make_room(now_ms);
    trim_newcomers();
    report_size();
}

// Into the list of its key's items, behind the head.
void NearCache::link(Item* item, std::string_view key) {
    Item* head = find_head(key);
    if (head == nullptr) {
        head = ItemTable::make({key, {}, {}, Item::kHead | Item::kArguments});
        table_.insert(head);
    }
    item->links().previous = head;
    item->links().next = head->links().next;
    if (head->links().next != nullptr) head->links().next->links().previous = item;
    head->links().next = item;
}

void NearCache::erase(Item* item) {
    CHECK(!item->has(Item::kHead) && entries_ > 0);
    if (item->has(Item::kArguments)) {
        Item* previous = item->links().previous;
        Item* next = item->links().next;
        previous->links().next = next;
        if (next != nullptr) next->links().previous = previous;
        if (next == nullptr && previous->has(Item::kHead)) table_.erase(previous);
    }
    std::replace(watched_.begin(), watched_.end(), static_cast<const Item*>(item),
                 static_cast<const Item*>(nullptr));
    --entries_;
    release_slot(item->source);
    table_.erase(item);
    trim_newcomers();
    report_size();
}

void NearCache::report_size() {
    metrics_.near_cache_entries = entries_;
    metrics_.near_cache_bytes = bytes_held();
}

// `hash` is that of the key alone.
void NearCache::drop_items(std::string_view key, uint32_t hash, uint64_t now_ms) {
    const auto drop = [&](Item* item) {
        if (options_.thrash_guard && !is_void(item, now_ms))
            guard_.on_dropped(key, item->flags & Item::kUsesMask, now_ms);
        erase(item);
    };
    Item* head = nullptr;
    for (Item* item = table_.chain(hash); item != nullptr;) {
        Item* next = item->next;
        if (item->arguments().empty() && item->key() == key) {
            if (item->has(Item::kHead)) {
                head = item;
            } else {
                drop(item);
            }
        }
        item = next;
    }
    // The last one takes the head with it.
    while (head != nullptr) {
        Item* first = head->links().next;
        const bool is_last = first->links().next == nullptr;
        drop(first);
        if (is_last) head = nullptr;
    }
}

// A head stands for those with arguments.
bool NearCache::has_items(KeyMark mark) const {
    const Item* item = table_.chain(mark);
    while (item != nullptr && !(item->arguments().empty() && table_.hash_of(item) == mark))
        item = item->next;
    return item != nullptr;
}

void NearCache::invalidate(std::string_view key, InvalidationCause cause, uint64_t now_ms) {
    const Hold hold(*this);
    ++(cause == InvalidationCause::Push ? metrics_.near_cache_invalidations_push_total
                                        : metrics_.near_cache_invalidations_write_total);
    const uint32_t hash = table_.hash_of(key, {});
    note(hash, cause, now_ms);
    drop_items(key, hash, now_ms);
    const auto state = keys_.find(key);
    if (state == keys_.end() || is_broken(Rule::FillTicket)) return;
    void_fills(&*state, now_ms);
    forget_if_idle(key);
}

void NearCache::clear(InvalidationCause cause, uint64_t now_ms) {
    const Hold hold(*this);
    ++clears_;
    ++(metrics_.*counter_of(cause));
    const bool is_lost = cause == InvalidationCause::Lost && options_.stale_if_unavailable_ms > 0;
    if (!is_lost) drop_lost();
    has_lost_ |= is_lost;
    last_of_all_ = {0, cause, now_ms};
    for (uint32_t i = 0; i < fills_.size(); ++i)
        close_fill(i);
    for (SourceId id = 0; id < sources_.size(); ++id) {
        Source& source = sources_[id];
        if (!source.is_open || slots_[source.slot].entries == 0) continue;
        const Slot former = slots_[source.slot];
        slots_[source.slot].is_open = false;
        slots_[source.slot].is_lost = is_lost;
        source.slot = take_slot(id, former.proven_ms);
        slots_[source.slot].is_suspended = former.is_suspended;
    }
}

uint64_t NearCache::clears() const {
    const Hold hold(*this);
    return clears_;
}

void NearCache::suspend(uint64_t now_ms) {
    const Hold hold(*this);
    if (std::exchange(is_suspended_, true)) return;
    metrics_.near_cache_suspended = 1;
    CHECK(begin_barrier(now_ms) == nullptr);
}

void NearCache::resume() {
    const Hold hold(*this);
    if (!std::exchange(is_suspended_, false)) return;
    metrics_.near_cache_suspended = 0;
    end_write(nullptr);
}

bool NearCache::is_suspended() const {
    const Hold hold(*this);
    return is_suspended_;
}

NearCache::Write NearCache::begin_write(std::string_view key, uint64_t now_ms) {
    const Hold hold(*this);
    Keys::value_type& state = state_of(key);
    ++state.second.writes;
    invalidate(key, InvalidationCause::Write, now_ms);
    return &state;
}

NearCache::Write NearCache::begin_barrier(uint64_t now_ms) {
    const Hold hold(*this);
    ++barriers_;
    clear(InvalidationCause::Barrier, now_ms);
    return nullptr;
}

// There is nothing to invalidate once more: since begin_write() its keys were neither stored nor
// being read.
void NearCache::end_write(Write write) {
    const Hold hold(*this);
    uint64_t& count = write == nullptr ? barriers_ : write->second.writes;
    CHECK(count > 0);
    --count;
    if (write != nullptr) forget_if_idle(write->first);
}

void NearCache::note(uint32_t hash, InvalidationCause cause, uint64_t now_ms) {
    last_[hash % kRemembered] = {hash, cause, now_ms};
}

}  // namespace nearkey
