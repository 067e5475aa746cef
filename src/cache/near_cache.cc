#include "nearkey/cache/near_cache.h"

#include "nearkey/base/check.h"
#include "nearkey/base/probes.h"
#include "nearkey/base/sabotage.h"

#include <algorithm>
#include <array>
#include <utility>

namespace nearkey {

namespace {

// By cause; those without one of their own count as barriers.
constexpr auto kClears = std::to_array<Count Metrics::*>(
    {&Metrics::near_cache_clears_barrier_total, &Metrics::near_cache_clears_barrier_total,
     &Metrics::near_cache_clears_flush_total, &Metrics::near_cache_clears_barrier_total,
     &Metrics::near_cache_clears_barrier_total, &Metrics::near_cache_clears_lost_total,
     &Metrics::near_cache_clears_swapdb_total, &Metrics::near_cache_clears_fields_total,
     &Metrics::near_cache_clears_asked_total, &Metrics::near_cache_clears_memory_total,
     &Metrics::near_cache_clears_barrier_total, &Metrics::near_cache_clears_barrier_total});
static_assert(kClears.size() == static_cast<size_t>(InvalidationCause::Options) + 1);

}  // namespace

NearCache::NearCache(const NearCacheOptions& options, Metrics& metrics, uint64_t seed)
    : options_(options),
      metrics_(metrics),
      guard_(metrics),
      shared_(options, metrics),
      sources_(options, shared_),
      replies_({options, metrics, sources_, guard_, shared_}, seed),
      in_flight_(options, metrics, guard_, replies_.table()) {
}

NearCache::SourceId NearCache::open_source(uint64_t proven_ms) {
    const Hold hold(*this);
    free_slots();
    return sources_.open(proven_ms);
}

void NearCache::close_source(SourceId source) {
    const Hold hold(*this);
    in_flight_.close_fills_of(source);
    sources_.close(source);
}

// Frees all void entries at once if sweep() has not come to them for 65,535 clears.
void NearCache::free_slots() {
    if (!sources_.is_short_of_slots()) return;
    sources_.drop_lost();
    const size_t all = replies_.table().buckets() + replies_.size();
    for (size_t i = 0; i < all; ++i)
        replies_.sweep(1, 0);
}

std::string_view NearCache::find_stale(const CacheQuery& query, uint64_t now_ms) {
    const Hold hold(*this);
    if (in_flight_.obstacle_of(query).is_write) return {};
    const Item* item = replies_.find(query);
    const bool is_served = item != nullptr && !slot_voids_.is_void(query.key, *item) &&
                           sources_.may_be_served_stale(*item, now_ms);
    return is_served ? item->reply() : std::string_view{};
}

NearCache::Found NearCache::find(const CacheQuery& query, uint64_t now_ms) {
    const Hold hold(*this);
    if (Item* item = replies_.find(query); item != nullptr) {
        if (!is_void(query, *item, now_ms)) {
            if (!sources_.is_proven(*item, now_ms) && !is_broken(Rule::Lease)) {
                ++metrics_.near_cache_unproven_total;
                return {Outcome::Unproven, {}, 0};
            }
            if ((item->flags & Item::kUsesMask) != Item::kUsesMask) ++item->flags;
            ++metrics_.near_cache_hits_total;
            if (query.sharing != Sharing::None && shared_.is_active()) {
                replies_.share(*item, query.sharing, now_ms);
                // Hits there are not seen here: who comes by stands for them.
                item->flags |= Item::kUsesMask;
            }
            return {Outcome::Hit, item->reply(), 0};
        }
        const bool is_kept =
            sources_.is_kept(*item, now_ms) && !slot_voids_.is_void(query.key, *item);
        if (!is_kept) replies_.erase(item);
    }
    ++metrics_.near_cache_misses_total;
    const KeysInFlight::Obstacle obstacle = in_flight_.obstacle_of(query);
    if (obstacle.is_write) return {Outcome::Blocked, {}, 0};
    return {obstacle.fill == 0 ? Outcome::Miss : Outcome::Pending, {}, obstacle.fill};
}

void NearCache::expect(std::string_view key, Expected& expected) const {
    const Hold hold(*this);
    const ItemTable& table = replies_.table();
    const Item* const first = table.chain(expected.before);
    if (first != nullptr) ItemTable::prefetch(first->next);
    expected.before = expected.last;
    ItemTable::prefetch(table.chain(expected.last));
    expected.last = table.hash_of(key, {});
    table.prefetch_chain(expected.last);
}

NearCache::Ticket NearCache::begin_fill(const CacheQuery& query, SourceId source) {
    const Hold hold(*this);
    if (Item* item = replies_.find(query); item != nullptr) replies_.erase(item);
    if (!in_flight_.takes_fills() || source == kNoSource || !sources_.is_open(source)) return 0;
    if (query.arguments.size() > StoredReplies::kNamePartMax || !StoredReplies::may_hold(query.key))
        return 0;
    if (!options_.takes_part(query.key) || guard_.is_off(query.key)) return 0;
    return in_flight_.begin_fill(query, source);
}

bool NearCache::is_alone(Ticket ticket) const {
    const Hold hold(*this);
    const KeysInFlight::Fill& fill = in_flight_.fill(ticket);
    return fill.is_open && in_flight_.is_only_one(fill) &&
           !replies_.has_any(mark_of(fill.key->first));
}

void NearCache::commit(Ticket ticket, std::string_view reply, uint64_t deadline_ms,
                       uint64_t now_ms) {
    const Hold hold(*this);
    const KeysInFlight::Fill& fill = in_flight_.fill(ticket);
    if (fill.is_open) {
        if (probes::is_traced(nearkey_fill_semaphore)) probes::fill(fill.query().key, reply.size());
        replies_.put({fill.query(), fill.source, reply, deadline_ms}, now_ms);
        const bool is_shared = fill.sharing != Sharing::None && shared_.is_active();
        Item* const stored = is_shared ? replies_.find(fill.query()) : nullptr;
        // It may have left already, or be void: its slot moved in this very tick.
        if (stored != nullptr && !is_void(fill.query(), *stored, now_ms)) {
            replies_.share(*stored, fill.sharing, now_ms);
        }
    } else {
        ++metrics_.near_cache_fills_void_total;
    }
    in_flight_.release(ticket);
}

void NearCache::abandon(Ticket ticket) {
    const Hold hold(*this);
    in_flight_.release(ticket);
}

bool NearCache::is_being_read(std::string_view key) const {
    const Hold hold(*this);
    return in_flight_.is_being_read(key);
}

bool NearCache::is_open(Ticket ticket) const {
    const Hold hold(*this);
    return in_flight_.fill(ticket).is_open;
}

bool NearCache::holds(KeyMark mark) const {
    const Hold hold(*this);
    return in_flight_.is_being_read(mark) || replies_.has_any(mark);
}

bool NearCache::is_idle() const {
    const Hold hold(*this);
    return replies_.size() == 0 && in_flight_.is_empty();
}

bool NearCache::wait(Ticket ticket, FillWaiter& waiter, FillWaiterLoop* loop, uint64_t now_ms) {
    const Hold hold(*this);
    return in_flight_.wait(ticket, {&waiter, loop, now_ms});
}

void NearCache::stop_waiting(Ticket ticket, const FillWaiter& waiter, FillWaiterLoop* loop) {
    const Hold hold(*this);
    if (loop != nullptr) loop->forget(waiter);
    in_flight_.stop_waiting(ticket, waiter);
}

NearCache::Write NearCache::begin_write(std::string_view key, uint64_t now_ms) {
    const Hold hold(*this);
    const Write write = in_flight_.begin_write(key);
    invalidate(key, InvalidationCause::Write, now_ms);
    return write;
}

NearCache::Write NearCache::begin_barrier(uint64_t now_ms) {
    const Hold hold(*this);
    const Write barrier = in_flight_.begin_barrier();
    clear(InvalidationCause::Barrier, now_ms);
    return barrier;
}

// There is nothing to invalidate once more: since begin_write() its keys were neither stored nor
// being read.
void NearCache::end_write(Write write) {
    const Hold hold(*this);
    in_flight_.end_write(write);
}

void NearCache::invalidate(std::string_view key, InvalidationCause cause, uint64_t now_ms) {
    const Hold hold(*this);
    ++(cause == InvalidationCause::Push ? metrics_.near_cache_invalidations_push_total
                                        : metrics_.near_cache_invalidations_write_total);
    const uint32_t hash = mark_of(key);
    log_.note({hash, cause, now_ms});
    if (probes::is_traced(nearkey_invalidation_semaphore)) {
        probes::invalidation(key, name_of(cause));
    }
    replies_.drop(key, hash, now_ms);
    in_flight_.void_fills(key, now_ms);
}

void NearCache::clear(InvalidationCause cause, uint64_t now_ms) {
    const Hold hold(*this);
    ++clears_;
    if (probes::is_traced(nearkey_invalidation_semaphore)) probes::invalidation({}, name_of(cause));
    ++(metrics_.*kClears[static_cast<size_t>(cause)]);
    const bool is_lost = cause == InvalidationCause::Lost && options_.stale_if_unavailable_ms > 0;
    if (!is_lost) sources_.drop_lost();
    log_.note_all(cause, now_ms);
    in_flight_.close_fills();
    free_slots();
    sources_.void_all(is_lost);
}

void NearCache::void_slots(std::span<const uint16_t> slots, SlotVoids::SlotOf slot_of,
                           uint64_t now_ms) {
    const Hold hold(*this);
    metrics_.near_cache_slots_voided_total += slots.size();
    slot_voids_.add(slots, slot_of, now_ms);
    shared_.clear();
    in_flight_.close_fills_if(
        [this](std::string_view key) { return slot_voids_.is_among_newest(key); });
}

void NearCache::suspend(uint64_t now_ms) {
    const Hold hold(*this);
    if (std::exchange(is_suspended_, true)) return;
    metrics_.near_cache_suspended = 1;
    shared_.off();
    NEARKEY_CHECK(begin_barrier(now_ms) == nullptr);
}

void NearCache::resume() {
    const Hold hold(*this);
    if (!std::exchange(is_suspended_, false)) return;
    metrics_.near_cache_suspended = 0;
    end_write(nullptr);
    shared_.on();
}

void NearCache::add_monitor() {
    const Hold hold(*this);
    if (monitors_++ == 0) shared_.off();
}

void NearCache::remove_monitor() {
    const Hold hold(*this);
    if (--monitors_ == 0) shared_.on();
}

bool NearCache::is_suspended() const {
    const Hold hold(*this);
    return is_suspended_;
}

void NearCache::sweep(size_t buckets, uint64_t now_ms) {
    const Hold hold(*this);
    guard_.expire(now_ms);
    slot_voids_.expire(now_ms);
    replies_.sweep(buckets, now_ms);
}

NearCache::Explanation NearCache::explain(const CacheQuery& query, uint64_t now_ms) {
    const Hold hold(*this);
    Explanation result{};
    const Invalidation& last = log_.last_of(mark_of(query.key));
    result.cause = last.cause;
    result.invalidated_ms = since(last.at_ms, now_ms);
    result.refused_ms = guard_.off_for_ms(query.key, now_ms);
    result.refusal = !options_.takes_part(query.key) ? Refusal::Keys
                     : result.refused_ms > 0         ? Refusal::Thrash
                                                     : Refusal::None;
    const Item* item = replies_.find(query);
    if (item == nullptr || is_void(query, *item, now_ms)) {
        const KeysInFlight::Obstacle obstacle = in_flight_.obstacle_of(query);
        result.outcome = obstacle.is_write    ? Outcome::Blocked
                         : obstacle.fill != 0 ? Outcome::Pending
                                              : Outcome::Miss;
        return result;
    }
    result.is_shared = shared_.holds({query.key, query.database, query.command});
    result.source = sources_.source_of(*item);
    result.proven_ms = since(sources_.proven_ms(*item), now_ms);
    // Another event loop's time may be a little ahead.
    const auto age = static_cast<int32_t>(tick_of(now_ms) - item->filled);
    result.age_ms = static_cast<uint64_t>(std::max(age, 0)) * kItemTickMs;
    result.left_ms = (item->deadline - tick_of(now_ms)) * kItemTickMs;
    result.outcome = sources_.is_proven(*item, now_ms) ? Outcome::Hit : Outcome::Unproven;
    return result;
}

NearCache::Watch::Watch(NearCache& cache) : cache_(cache) {
    const Hold hold(cache_);
    id_ = cache_.replies_.add_watch();
}

void NearCache::Watch::set(const CacheQuery& query) {
    const Hold hold(cache_);
    clears_ = cache_.clears_;
    cache_.replies_.watch(id_, query);
}

bool NearCache::Watch::is_served(uint64_t now_ms) const {
    const Hold hold(cache_);
    const Item* item = cache_.replies_.watched(id_);
    return item != nullptr && !cache_.sources_.is_void(*item, now_ms) &&
           !cache_.slot_voids_.is_void(item->key(), *item) &&
           cache_.sources_.is_proven(*item, now_ms);
}

bool NearCache::Watch::was_cleared() const {
    const Hold hold(cache_);
    return cache_.clears_ != clears_;
}

void NearCache::shrink() {
    const Hold hold(*this);
    in_flight_.shrink();
    replies_.shrink();
}

void NearCache::check_invariants() const {
    const Hold hold(*this);
    replies_.check_invariants();
    in_flight_.check_invariants();
    shared_.for_each([this](const SharedReplies::Identity& identity, const SharedReplies::Reply&) {
        const CacheQuery query{identity.key, {}, identity.command, identity.database};
        NEARKEY_CHECK(!slot_voids_.is_void(identity.key, *replies_.find(query)));
    });
    // A key that is being written is not stored.
    for (const auto& [key, state] : in_flight_.keys())
        NEARKEY_CHECK(state.writes == 0 || !replies_.has_any(mark_of(key)));
}

}  // namespace nearkey
