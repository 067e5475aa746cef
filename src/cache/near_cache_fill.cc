// Where entries come from: sources, and the reads whose replies may be stored.
#include "nearkey/cache/near_cache.h"

#include "nearkey/base/check.h"
#include "nearkey/cache/glob.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kSlotsMax = UINT16_MAX;
constexpr size_t kSpareKeyBytes = 256;
}  // namespace

// --- sources ---

NearCache::SourceId NearCache::open_source(uint64_t proven_ms) {
    const Hold hold(*this);
    SourceId id = static_cast<SourceId>(sources_.size());
    if (free_sources_.empty()) {
        sources_.push_back({});
    } else {
        id = free_sources_.back();
        free_sources_.pop_back();
    }
    sources_[id] = {take_slot(id, proven_ms), true, 0};
    return id;
}

void NearCache::renew_source(SourceId source, uint64_t proven_ms) {
    const Hold hold(*this);
    CHECK(source < sources_.size() && sources_[source].is_open);
    const Source& renewed = sources_[source];
    if (renewed.suspended_ms != 0 && proven_ms <= renewed.suspended_ms) return;
    slots_[renewed.slot].proven_ms = proven_ms;
    slots_[renewed.slot].is_suspended = false;
}

void NearCache::suspend_source(SourceId source, uint64_t now_ms) {
    const Hold hold(*this);
    CHECK(source < sources_.size() && sources_[source].is_open);
    sources_[source].suspended_ms = now_ms;
    slots_[sources_[source].slot].is_suspended = true;
}

void NearCache::close_source(SourceId source) {
    const Hold hold(*this);
    CHECK(source < sources_.size() && sources_[source].is_open);
    for (uint32_t i = 0; i < fills_.size(); ++i) {
        if (fills_[i].source == source) close_fill(i);
    }
    Source& closed = sources_[source];
    closed.is_open = false;
    Slot& slot = slots_[closed.slot];
    slot.is_open = false;
    slot.is_lost = options_.stale_if_unavailable_ms > 0;
    has_lost_ |= slot.is_lost;
    if (slot.entries == 0) free_slots_.push_back(closed.slot);
    free_sources_.push_back(source);
}

uint16_t NearCache::take_slot(SourceId source, uint64_t proven_ms) {
    if (free_slots_.empty() && slots_.size() >= kSlotsMax) purge();
    if (free_slots_.empty()) {
        CHECK(slots_.size() < kSlotsMax);
        free_slots_.push_back(static_cast<uint16_t>(slots_.size()));
        slots_.push_back({});
    }
    const uint16_t slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = {proven_ms, 0, source, true, false, false};
    return slot;
}

// An entry of it is gone.
void NearCache::release_slot(uint16_t slot) {
    CHECK(slots_[slot].entries > 0);
    if (--slots_[slot].entries == 0 && !slots_[slot].is_open) free_slots_.push_back(slot);
}

// Frees all void entries at once, which sweep() has not come to for 65,535 clears.
void NearCache::purge() {
    drop_lost();
    const size_t all = table_.buckets() + entries_;
    for (size_t i = 0; i < all; ++i)
        sweep(1, 0);
}

// --- while Valkey is away ---

// It is void, but find_stale() may serve it.
bool NearCache::is_kept(const Item* item, uint64_t now_ms) const {
    const Slot& slot = slots_[item->source];
    if (!slot.is_lost) return false;
    const bool is_over = static_cast<int32_t>(item->deadline - tick_of(now_ms)) <= 0;
    return !is_over && now_ms < slot.proven_ms + options_.stale_if_unavailable_ms;
}

std::string_view NearCache::find_stale(const CacheQuery& query, uint64_t now_ms) {
    const Hold hold(*this);
    if (barriers_ > 0) return {};
    const auto state = keys_.find(query.key);
    if (state != keys_.end() && state->second.writes > 0) return {};
    const Item* item = find_item(query);
    if (item == nullptr) return {};
    const bool is_unproven =
        !is_void(item, now_ms) &&
        now_ms < slots_[item->source].proven_ms + options_.stale_if_unavailable_ms;
    return is_unproven || is_kept(item, now_ms) ? item->reply() : std::string_view{};
}

void NearCache::drop_lost() {
    const Hold hold(*this);
    if (!std::exchange(has_lost_, false)) return;
    for (Slot& slot : slots_)
        slot.is_lost = false;
}

// --- fills ---

// What near_cache.keys and skip_keys say of it.
bool NearCache::takes_part(std::string_view key) const {
    const auto is_named = [key](const std::string& pattern) { return matches_glob(pattern, key); };
    const auto is_named_by = [&](const std::vector<std::string>& patterns) {
        return std::any_of(patterns.begin(), patterns.end(), is_named);
    };
    return (options_.keys.empty() || is_named_by(options_.keys)) &&
           !is_named_by(options_.skip_keys);
}

NearCache::Ticket NearCache::begin_fill(const CacheQuery& query, SourceId source) {
    const Hold hold(*this);
    if (Item* item = find_item(query); item != nullptr) erase(item);
    const bool is_full = fills_.size() >= options_.fills_max && free_fills_.empty();
    if (is_full) ++metrics_.near_cache_fills_full_total;
    if (is_full || barriers_ > 0 || source == kNoSource || !sources_[source].is_open) return 0;
    if (query.arguments.size() > kNamePartMax || !may_hold(query.key)) return 0;
    if (!takes_part(query.key) || guard_.is_off(query.key)) return 0;
    if (const auto key = keys_.find(query.key); key != keys_.end()) {
        if (key->second.writes > 0) return 0;
        const uint32_t older = find_open_fill(key->second, query);
        if (older != kNone) close_fill(older);
    }
    if (free_fills_.empty()) {
        free_fills_.push_back(static_cast<uint32_t>(fills_.size()));
        fills_.emplace_back();
    }
    const uint32_t index = free_fills_.back();
    free_fills_.pop_back();
    Fill& fill = fills_[index];
    if (++last_generation_ == 0) ++last_generation_;  // A ticket is never 0.
    fill.generation = last_generation_;
    fill.is_taken = fill.is_open = true;
    fill.command = query.command;
    fill.database = query.database;
    fill.source = source;
    fill.arguments = query.arguments;
    if (query.arguments.size() > kSpareKeyBytes) count_name(query.arguments.size());
    fill.key = &state_of(query.key);
    fill.next_in_key = std::exchange(fill.key->second.first_fill, index);
    return uint64_t{fill.generation} << 32 | index;
}

bool NearCache::is_alone(Ticket ticket) const {
    const Hold hold(*this);
    const auto index = static_cast<uint32_t>(ticket);
    if (!is_open(ticket)) return false;
    const Fill& fill = fills_[index];
    return fill.key->second.first_fill == index && fill.next_in_key == kNone &&
           !has_items(mark_of(fill.key->first));
}

void NearCache::commit(Ticket ticket, std::string_view reply, uint64_t deadline_ms,
                       uint64_t now_ms) {
    const Hold hold(*this);
    Fill* fill = find_fill(ticket);
    CHECK(fill != nullptr);
    if (fill->is_open) {
        store(*fill, reply, deadline_ms, now_ms);
    } else {
        ++metrics_.near_cache_fills_void_total;
    }
    release_fill(*fill);
}

void NearCache::abandon(Ticket ticket) {
    const Hold hold(*this);
    Fill* fill = find_fill(ticket);
    CHECK(fill != nullptr);
    release_fill(*fill);
}

bool NearCache::is_being_read(std::string_view key) const {
    const Hold hold(*this);
    const auto state = keys_.find(key);
    return state != keys_.end() && state->second.first_fill != kNone;
}

bool NearCache::is_open(Ticket ticket) const {
    const Hold hold(*this);
    const Fill& fill = fills_[static_cast<uint32_t>(ticket)];
    CHECK(fill.is_taken && fill.generation == ticket >> 32);
    return fill.is_open;
}

bool NearCache::holds(KeyMark mark) const {
    const Hold hold(*this);
    const auto state = keys_.find(mark);
    return (state != keys_.end() && state->second.first_fill != kNone) || has_items(mark);
}

bool NearCache::wait(Ticket ticket, FillWaiter& waiter, FillWaiterLoop* loop, uint64_t now_ms) {
    const Hold hold(*this);
    Fill* fill = find_fill(ticket);
    if (fill == nullptr || !fill->is_open) return false;
    fill->waiters.push_back({&waiter, loop, now_ms});
    ++waiting_;
    ++metrics_.near_cache_joins_total;
    return true;
}

void NearCache::stop_waiting(Ticket ticket, const FillWaiter& waiter, FillWaiterLoop* loop) {
    const Hold hold(*this);
    if (loop != nullptr) std::erase(loop->to_tell_, &waiter);
    Fill* fill = find_fill(ticket);
    if (fill == nullptr) return;
    waiting_ -= std::erase_if(
        fill->waiters, [&](const Fill::Waiting& waiting) { return waiting.waiter == &waiter; });
}

void NearCache::end_long_waits(uint64_t begun_before_ms) {
    const Hold hold(*this);
    if (waiting_ == 0) return;
    for (size_t i = 0; i < fills_.size(); ++i) {
        std::vector<Fill::Waiting>& waiters = fills_[i].waiters;
        const auto is_late = [&](const Fill::Waiting& waiting) {
            return waiting.since_ms < begun_before_ms;
        };
        std::vector<Fill::Waiting> late;
        std::copy_if(waiters.begin(), waiters.end(), std::back_inserter(late), is_late);
        if (late.empty()) continue;
        waiting_ -= std::erase_if(waiters, is_late);
        tell(late);
    }
}

void NearCache::tell_waiters(FillWaiterLoop& loop) {
    const Hold hold(*this);
    for (FillWaiter* waiter : std::exchange(loop.to_tell_, {}))
        waiter->on_fill_closed();
}

NearCache::Fill* NearCache::find_fill(Ticket ticket) {
    const auto index = static_cast<uint32_t>(ticket);
    if (index >= fills_.size()) return nullptr;
    Fill& fill = fills_[index];
    return fill.is_taken && fill.generation == ticket >> 32 ? &fill : nullptr;
}

uint32_t NearCache::find_open_fill(const KeyState& state, const CacheQuery& query) const {
    uint32_t index = state.first_fill;
    while (index != kNone && !is_same(fills_[index], query))
        index = fills_[index].next_in_key;
    return index;
}

bool NearCache::is_same(const Fill& fill, const CacheQuery& query) {
    return fill.command == query.command && fill.database == query.database &&
           fill.arguments == query.arguments;
}

// Nothing will be stored with its ticket, if nothing was yet.
void NearCache::close_fill(uint32_t index) {
    Fill& fill = fills_[index];
    if (!fill.is_open) return;
    fill.is_open = false;
    uint32_t* link = &fill.key->second.first_fill;
    while (*link != index)
        link = &fills_[*link].next_in_key;
    *link = fill.next_in_key;
    forget_if_idle(std::exchange(fill.key, nullptr)->first);
    waiting_ -= fill.waiters.size();
    tell(std::exchange(fill.waiters, {}));
}

void NearCache::tell(const std::vector<Fill::Waiting>& waiters) {
    for (const Fill::Waiting& waiting : waiters) {
        if (waiting.loop == nullptr || waiting.loop->is_here()) {
            waiting.waiter->on_fill_closed();
        } else {
            waiting.loop->to_tell_.push_back(waiting.waiter);
            waiting.loop->wake();
        }
    }
}

void NearCache::void_fills(Write key, uint64_t now_ms) {
    KeyState& state = key->second;
    // What waits for the last of them keeps the state.
    ++state.writes;
    while (state.first_fill != kNone) {
        if (options_.thrash_guard) guard_.on_dropped(key->first, 0, now_ms);
        close_fill(state.first_fill);
    }
    --state.writes;
}

NearCache::Keys::value_type& NearCache::state_of(std::string_view key) {
    if (const auto found = keys_.find(key); found != keys_.end()) return *found;
    if (key.size() > kSpareKeyBytes) count_name(key.size());
    if (spare_keys_.empty()) return *keys_.emplace(key, KeyState{}).first;
    Keys::node_type node = std::move(spare_keys_.back());
    spare_keys_.pop_back();
    node.key() = key;
    node.mapped() = {};
    return *keys_.insert(std::move(node)).position;
}

// `key` may be the one that goes with the state.
void NearCache::forget_if_idle(std::string_view key) {
    const auto found = keys_.find(key);
    if (found == keys_.end()) return;
    if (found->second.writes > 0 || found->second.first_fill != kNone) return;
    if (spare_keys_.size() < kSpareKeys && key.size() <= kSpareKeyBytes) {
        spare_keys_.push_back(keys_.extract(found));
    } else {
        if (found->first.size() > kSpareKeyBytes) count_name(-found->first.size());
        keys_.erase(found);
    }
}

// Of a read or a write in flight; short ones are not counted. `size` may be a negative number's.
void NearCache::count_name(size_t size) {
    metrics_.near_cache_in_flight_bytes += size;
}

void NearCache::release_fill(Fill& fill) {
    const auto index = static_cast<uint32_t>(&fill - fills_.data());
    close_fill(index);
    if (fill.arguments.size() > kSpareKeyBytes) {
        count_name(-fill.arguments.size());
        std::string().swap(fill.arguments);
    }
    fill.is_taken = false;
    free_fills_.push_back(index);
}

void NearCache::shrink() {
    const Hold hold(*this);
    keys_.rehash(0);
    while (!fills_.empty() && !fills_.back().is_taken)
        fills_.pop_back();
    std::erase_if(free_fills_, [this](uint32_t index) { return index >= fills_.size(); });
    fills_.shrink_to_fit();
    free_fills_.shrink_to_fit();
    newcomers_.shrink(entries_);
    report_size();
}

// --- for tests ---

// Each has a record of its own, or some could never be evicted.
bool NearCache::are_newcomers_recorded() const {
    std::unordered_map<uint32_t, size_t> records;
    for (const uint32_t hash : newcomers_.hashes())
        ++records[hash];
    for (size_t i = 0; i < table_.buckets(); ++i) {
        for (Item* item = table_.chain_at(i); item != nullptr; item = item->next) {
            if (item->has(Item::kNew) && records[table_.hash_of(item)]-- == 0) return false;
        }
    }
    return true;
}

void NearCache::check_invariants() const {
    const Hold hold(*this);
    size_t entries = 0;
    size_t items = 0;
    std::vector<uint32_t> of_slot(slots_.size());
    for (size_t i = 0; i < table_.buckets(); ++i) {
        for (Item* item = table_.chain_at(i); item != nullptr; item = item->next) {
            ++items;
            if (item->has(Item::kHead)) {
                CHECK(item->links().next != nullptr && item->links().previous == nullptr);
                continue;
            }
            ++entries;
            ++of_slot[item->source];
            if (!item->has(Item::kArguments)) continue;
            const Item* previous = item->links().previous;
            CHECK(previous != nullptr && previous->key() == item->key());
        }
    }
    CHECK(entries == entries_ && items == table_.size());
    CHECK(are_newcomers_recorded());
    for (size_t i = 0; i < slots_.size(); ++i)
        CHECK(of_slot[i] == slots_[i].entries);
    size_t open = 0;
    for (const auto& [key, state] : keys_) {
        // What is being written is neither stored nor being read.
        CHECK((state.writes > 0) == (state.first_fill == kNone));
        CHECK(state.writes == 0 || !has_items(mark_of(key)));
        for (uint32_t i = state.first_fill; i != kNone; i = fills_[i].next_in_key, ++open)
            CHECK(fills_[i].is_open && fills_[i].key->first == key);
    }
    for (const Fill& fill : fills_) {
        CHECK(!fill.is_open || fill.is_taken);
        if (fill.is_open) --open;
    }
    CHECK(open == 0);
}

}  // namespace nearkey
