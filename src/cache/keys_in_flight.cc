#include "nearkey/cache/keys_in_flight.h"

#include "nearkey/base/sabotage.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kSpareKeyBytes = 256;

bool is_same(const KeysInFlight::Fill& fill, const CacheQuery& query) {
    return fill.command == query.command && fill.database == query.database &&
           fill.arguments == query.arguments;
}
}  // namespace

KeysInFlight::KeysInFlight(const NearCacheOptions& options, Metrics& metrics, ThrashGuard& guard,
                           const ItemTable& table)
    : options_(options),
      metrics_(metrics),
      guard_(guard),
      keys_(0, KeyHash{table}, KeyEqual{table}) {
}

KeysInFlight::Obstacle KeysInFlight::obstacle_of(const CacheQuery& query) const {
    if (barriers_ > 0) return {true, 0};
    const auto state = keys_.find(query.key);
    if (state == keys_.end()) return {false, 0};
    if (state->second.writes > 0) return {true, 0};
    const uint32_t fill = find_open_fill(state->second, query);
    if (fill == kNone) return {false, 0};
    return {false, uint64_t{fills_[fill].generation} << 32 | fill};
}

KeysInFlight::Ticket KeysInFlight::begin_fill(const CacheQuery& query, ReplySources::Id source) {
    auto state = keys_.find(query.key);
    if (state != keys_.end()) {
        if (state->second.writes > 0) return 0;
        const uint32_t older = find_open_fill(state->second, query);
        if (older != kNone) {
            close_fill(older);  // It may take the state with it.
            state = keys_.find(query.key);
        }
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
    fill.sharing = query.sharing;
    fill.source = source;
    if (!query.arguments.empty()) fill.arguments = query.arguments;
    if (query.arguments.size() > kSpareKeyBytes)
        metrics_.near_cache_in_flight_bytes += query.arguments.size();
    fill.key = state != keys_.end() ? &*state : &add_state(query.key);
    fill.next_in_key = std::exchange(fill.key->second.first_fill, index);
    return uint64_t{fill.generation} << 32 | index;
}

void KeysInFlight::release(Ticket ticket) {
    const auto index = static_cast<uint32_t>(ticket);
    NEARKEY_CHECK(find_fill(ticket) != nullptr);
    close_fill(index);
    Fill& fill = fills_[index];
    if (fill.arguments.size() > kSpareKeyBytes) {
        metrics_.near_cache_in_flight_bytes -= fill.arguments.size();
        std::string().swap(fill.arguments);
    }
    fill.arguments.clear();
    fill.is_taken = false;
    free_fills_.push_back(index);
}

void KeysInFlight::close_fills() {
    for (uint32_t i = 0; i < fills_.size(); ++i)
        close_fill(i);
}

void KeysInFlight::close_fills_of(ReplySources::Id source) {
    for (uint32_t i = 0; i < fills_.size(); ++i) {
        if (fills_[i].source == source) close_fill(i);
    }
}

void KeysInFlight::void_fills(Keys::value_type& key, uint64_t now_ms) {
    if (is_broken(Rule::FillTicket)) return;
    KeyState& state = key.second;
    // A waiter for the last of them keeps the state.
    ++state.writes;
    while (state.first_fill != kNone) {
        if (options_.thrash_guard) guard_.on_dropped(key.first, 0, now_ms);
        close_fill(state.first_fill);
    }
    --state.writes;
    forget_if_idle(key.first);
}

bool KeysInFlight::wait(Ticket ticket, const Fill::Waiting& waiting) {
    Fill* fill = find_fill(ticket);
    if (fill == nullptr || !fill->is_open) return false;
    fill->waiters.push_back(waiting);
    ++waiting_;
    ++metrics_.near_cache_joins_total;
    return true;
}

void KeysInFlight::stop_waiting(Ticket ticket, const FillWaiter& waiter) {
    Fill* fill = find_fill(ticket);
    if (fill == nullptr) return;
    waiting_ -= std::erase_if(
        fill->waiters, [&](const Fill::Waiting& waiting) { return waiting.waiter == &waiter; });
}

void KeysInFlight::end_long_waits(uint64_t begun_before_ms) {
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

KeysInFlight::Fill* KeysInFlight::find_fill(Ticket ticket) {
    const auto index = static_cast<uint32_t>(ticket);
    if (index >= fills_.size()) return nullptr;
    Fill& fill = fills_[index];
    return fill.is_taken && fill.generation == ticket >> 32 ? &fill : nullptr;
}

uint32_t KeysInFlight::find_open_fill(const KeyState& state, const CacheQuery& query) const {
    uint32_t index = state.first_fill;
    while (index != kNone && !is_same(fills_[index], query))
        index = fills_[index].next_in_key;
    return index;
}

// Nothing will be stored with its ticket, if nothing was yet.
void KeysInFlight::close_fill(uint32_t index) {
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

void KeysInFlight::tell(const std::vector<Fill::Waiting>& waiters) {
    for (const auto& [waiter, loop, since_ms] : waiters) {
        if (loop == nullptr || loop->is_here()) {
            waiter->on_fill_closed();
        } else {
            loop->tell_later(*waiter);
        }
    }
}

KeysInFlight::Keys::value_type& KeysInFlight::add_state(std::string_view key) {
    if (key.size() > kSpareKeyBytes) metrics_.near_cache_in_flight_bytes += key.size();
    if (spare_keys_.empty()) return *keys_.emplace(key, KeyState{}).first;
    Keys::node_type node = std::move(spare_keys_.back());
    spare_keys_.pop_back();
    node.key() = key;
    node.mapped() = {};
    return *keys_.insert(std::move(node)).position;
}

// `key` may be the one that goes with the state.
void KeysInFlight::forget_if_idle(std::string_view key) {
    const auto found = keys_.find(key);
    if (found == keys_.end()) return;
    if (found->second.writes > 0 || found->second.first_fill != kNone) return;
    if (spare_keys_.size() < kSpareKeys && key.size() <= kSpareKeyBytes) {
        spare_keys_.push_back(keys_.extract(found));
    } else {
        if (found->first.size() > kSpareKeyBytes)
            metrics_.near_cache_in_flight_bytes -= found->first.size();
        keys_.erase(found);
    }
}

void KeysInFlight::shrink() {
    keys_.rehash(0);
    while (!fills_.empty() && !fills_.back().is_taken)
        fills_.pop_back();
    std::erase_if(free_fills_, [this](uint32_t index) { return index >= fills_.size(); });
    fills_.shrink_to_fit();
    free_fills_.shrink_to_fit();
}

// --- for tests ---

void KeysInFlight::check_invariants() const {
    size_t open = 0;
    for (const auto& [key, state] : keys_) {
        NEARKEY_CHECK((state.writes > 0) == (state.first_fill == kNone));
        for (uint32_t i = state.first_fill; i != kNone; i = fills_[i].next_in_key, ++open)
            NEARKEY_CHECK(fills_[i].is_open && fills_[i].key->first == key);
    }
    for (const Fill& fill : fills_) {
        NEARKEY_CHECK(!fill.is_open || fill.is_taken);
        if (fill.is_open) --open;
    }
    NEARKEY_CHECK(open == 0);
}

}  // namespace nearkey
