// The reads and the writes of keys that are in flight: a read's reply may be stored when it comes,
// unless something has invalidated its key meanwhile; a key that is being written is neither stored
// nor found.
// Owned by NearCache. The one rule: a key that is being written has no open fill.
//
//   begin_fill ─▶ open ──reply──▶ stored ─▶ release
//                   └──close──▶ void: the ticket stays the reader's until release
#pragma once

#include "nearkey/base/check.h"
#include "nearkey/base/metrics.h"
#include "nearkey/cache/fill_waiter.h"
#include "nearkey/cache/item_table.h"
#include "nearkey/cache/options.h"
#include "nearkey/cache/reply_sources.h"
#include "nearkey/cache/thrash_guard.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nearkey {

class KeysInFlight {
    static constexpr uint32_t kNone = UINT32_MAX;

public:
    // The reads and writes in flight of one key.
    struct KeyState {
        uint64_t writes = 0;
        uint32_t first_fill = kNone;
    };
    // Stands for a key where its name would cost memory; now and then two have the same.
    using KeyMark = uint32_t;
    struct KeyHash {
        using is_transparent = void;
        const ItemTable& table;
        size_t operator()(std::string_view key) const { return table.hash_of(key, {}); }
        size_t operator()(KeyMark mark) const { return mark; }
    };
    struct KeyEqual {
        using is_transparent = void;
        const ItemTable& table;
        bool operator()(std::string_view a, std::string_view b) const { return a == b; }
        bool operator()(KeyMark a, std::string_view b) const { return a == table.hash_of(b, {}); }
        bool operator()(std::string_view a, KeyMark b) const { return (*this)(b, a); }
    };
    using Keys = std::unordered_map<std::string, KeyState, KeyHash, KeyEqual>;
    // Null: of every key.
    using Write = Keys::value_type*;
    // The permission to store one reply; 0 is none.
    using Ticket = uint64_t;

    struct Fill {
        struct Waiting {
            FillWaiter* waiter;
            FillWaiterLoop* loop;
            uint64_t since_ms;
        };

        uint32_t generation = 0;
        bool is_taken = false;
        bool is_open = false;
        uint8_t command = 0;
        uint16_t database = 0;
        Sharing sharing = Sharing::None;
        ReplySources::Id source = 0;
        uint32_t next_in_key = kNone;
        Keys::value_type* key = nullptr;  // while it is open
        std::string arguments;
        std::vector<Waiting> waiters;

        // REQUIRES: it is open.
        CacheQuery query() const { return {key->first, arguments, command, database, sharing}; }
    };
    // The reason why a read can't be answered from the cache: a write, or another read.
    struct Obstacle {
        bool is_write;
        Ticket fill;
    };

    // All references outlive it; keys are hashed as in `table`.
    KeysInFlight(const NearCacheOptions& options, Metrics& metrics, ThrashGuard& guard,
                 const ItemTable& table);

    Obstacle obstacle_of(const CacheQuery& query) const;
    // False, and counted: there are as many as there may be; or everything is being written.
    bool takes_fills() {
        const bool is_full = fills_.size() >= options_.fills_max && free_fills_.empty();
        if (is_full) ++metrics_.near_cache_fills_full_total;
        return !is_full && barriers_ == 0;
    }
    // An open fill of the same query becomes void. 0: its key is being written.
    // REQUIRES: takes_fills().
    Ticket begin_fill(const CacheQuery& query, ReplySources::Id source);
    // REQUIRES: the ticket was not released yet.
    const Fill& fill(Ticket ticket) const {
        const auto index = static_cast<uint32_t>(ticket);
        NEARKEY_CHECK(index < fills_.size());
        NEARKEY_CHECK(fills_[index].is_taken && fills_[index].generation == ticket >> 32);
        return fills_[index];
    }
    void release(Ticket ticket);
    void close_fills();
    void close_fills_of(ReplySources::Id source);
    // `Matches`: bool(std::string_view key).
    template <class Matches>
    void close_fills_if(Matches matches) {
        for (uint32_t i = 0; i < fills_.size(); ++i) {
            if (fills_[i].is_open && matches(fills_[i].key->first)) close_fill(i);
        }
    }
    // Voids the key's fills, because it was invalidated.
    void void_fills(std::string_view key, uint64_t now_ms) {
        const auto found = keys_.find(key);
        if (found == keys_.end()) return;
        // Nothing is being read as a rule: a state without a fill has a write.
        if (found->second.first_fill != kNone) void_fills(*found, now_ms);
    }
    // True if no other fill of its key is open. REQUIRES: it is open.
    bool is_only_one(const Fill& fill) const {
        return &fills_[fill.key->second.first_fill] == &fill && fill.next_in_key == kNone;
    }
    // `Key` is a key or its mark.
    template <class Key>
    bool is_being_read(Key key) const {
        const auto state = keys_.find(key);
        return state != keys_.end() && state->second.first_fill != kNone;
    }

    // False: the fill is closed already.
    bool wait(Ticket ticket, const Fill::Waiting& waiting);
    void stop_waiting(Ticket ticket, const FillWaiter& waiter);
    void end_long_waits(uint64_t begun_before_ms);

    Write begin_write(std::string_view key) {
        const auto found = keys_.find(key);
        Keys::value_type& state = found != keys_.end() ? *found : add_state(key);
        ++state.second.writes;
        return &state;
    }
    Write begin_barrier() {
        ++barriers_;
        return nullptr;
    }
    void end_write(Write write) {
        uint64_t& count = write == nullptr ? barriers_ : write->second.writes;
        NEARKEY_CHECK(count > 0);
        --count;
        if (write != nullptr) forget_if_idle(write->first);
    }

    // Barriers are not asked for.
    bool is_empty() const { return keys_.empty(); }
    void shrink();
    const Keys& keys() const { return keys_; }
    // For tests: aborts if anything does not fit together.
    void check_invariants() const;

private:
    void void_fills(Keys::value_type& key, uint64_t now_ms);
    Fill* find_fill(Ticket ticket);
    uint32_t find_open_fill(const KeyState& state, const CacheQuery& query) const;
    void close_fill(uint32_t index);
    void tell(const std::vector<Fill::Waiting>& waiters);
    // REQUIRES: there is none yet.
    Keys::value_type& add_state(std::string_view key);
    void forget_if_idle(std::string_view key);

    const NearCacheOptions& options_;
    Metrics& metrics_;
    ThrashGuard& guard_;
    Keys keys_;
    static constexpr size_t kSpareKeys = 64;
    std::vector<Keys::node_type> spare_keys_;  // for the next ones, so that none is allocated
    uint32_t last_generation_ = 0;             // so that no fill ticket is given twice
    std::vector<Fill> fills_;
    std::vector<uint32_t> free_fills_;
    size_t waiting_ = 0;  // for all of them together
    uint64_t barriers_ = 0;
};

}  // namespace nearkey
