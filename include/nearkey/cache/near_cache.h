// Replies that nearkey may answer itself, and the rules that keep them true.
// Owned by Daemon. Knows no sockets, no loop and no clock: times are the caller's, in milliseconds
// on one clock that never goes back and counts a suspended host's sleep. One for all event loops:
// each call is a step of its own among theirs, and who needs several in one step takes a Hold.
//
//   find ─Hit──▶ answer                       invalidate(key): what is stored is dropped,
//        ─Miss─▶ begin_fill ─▶ read upstream    what is being filled will not be stored
//                commit ◀───── reply          begin_write: the same, and until end_write
//                                               the key is neither stored nor found
//
// The one rule: a reply is stored only if nothing has invalidated its key since before the read was
// sent, and is served only while its source (one life of the connection that is told of changes) is
// open and has proven within max_staleness_ms that no news is outstanding.
//
// Eviction is S3-FIFO's idea without its links: a tenth are newcomers, who leave first unless they
// were hit; who comes back soon after stays; the others go by a clock's hand over the hash table.
// scripts/bench --policies, at equal memory, Zipf with 30 % scans: LRU 48.8 %, SIEVE 53.2 %,
// S3-FIFO 54.3 %, this 54.5 %; a loop of twice the cache: 46 %, the others 0 (docs/decisions.md).
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/base/reentrant_mutex.h"
#include "nearkey/cache/item_table.h"
#include "nearkey/cache/newcomers.h"
#include "nearkey/cache/options.h"
#include "nearkey/cache/thrash_guard.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nearkey {

// What a reply depends on. The views are valid during the call.
struct CacheQuery {
    std::string_view key;
    std::string_view arguments;  // all others, in one unambiguous piece
    uint8_t command;             // a number of the caller's for (command, protocol)
    uint16_t database;
};

enum class InvalidationCause : uint8_t {
    None,
    Push,     // Valkey said so
    Flush,    // Valkey said so, of everything
    Write,    // a write from this host
    Barrier,  // a command from this host whose keys are not known
    Lost,     // the connection that is told of changes was lost
    SwapDb,
    Fields,    // of hashes may expire by themselves
    Asked,     // NEARKEY CACHE CLEAR
    Memory,    // there is too little
    Upstream,  // another one was named
    Options,   // of the near cache were changed
};
std::string_view name_of(InvalidationCause cause);

// Waits for somebody else's read of the same. What it is told it does later, not in the call.
class FillWaiter {
public:
    // The reply is stored, or will not be: ask again.
    virtual void on_fill_closed() = 0;

protected:
    ~FillWaiter() = default;
};

// The event loop of waiters, where there are several: they are told on their own thread.
class FillWaiterLoop {
public:
    // Whether this is its thread.
    virtual bool is_here() const = 0;
    // On any thread: tell_waiters() is to be called soon, on its own.
    virtual void wake() = 0;

protected:
    ~FillWaiterLoop() = default;

private:
    friend class NearCache;
    std::vector<FillWaiter*> to_tell_;
};

class NearCache {
    static constexpr uint32_t kNone = UINT32_MAX;
    static constexpr size_t kNamePartMax = UINT16_MAX;  // of key and arguments, each

public:
    // What is going on with a key.
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
    using SourceId = uint32_t;
    static constexpr SourceId kNoSource = UINT32_MAX;

    enum class Outcome : uint8_t {
        Hit,
        Miss,
        Pending,   // it is being read already: `ticket`
        Blocked,   // a write is in flight
        Unproven,  // stored, but its source has proven nothing for too long
    };
    struct Found {
        Outcome outcome;
        std::string_view reply;  // of a hit; valid until the next call, and while held if shared
        Ticket ticket;
    };
    // Why nothing is stored of a key.
    enum class Refusal : uint8_t {
        None,
        Keys,    // near_cache.keys and skip_keys leave it out
        Thrash,  // its family is invalidated more often than hit
    };
    struct Explanation {
        Outcome outcome;
        Refusal refusal;
        uint64_t refused_ms;      // for so long, if it is Refusal::Thrash
        uint64_t age_ms;          // of what is stored
        uint64_t left_ms;         // until its deadline
        uint64_t proven_ms;       // ago, by its source
        SourceId source;          // its connection's
        InvalidationCause cause;  // of the last invalidation of this key, or of everything
        uint64_t invalidated_ms;  // ago
    };

    // Keeps all other threads out, from its beginning to its end.
    class Hold {
    public:
        explicit Hold(const NearCache& cache) : mutex_(cache.mutex_) { mutex_.lock(); }
        ~Hold() { mutex_.unlock(); }
        Hold(const Hold&) = delete;
        Hold& operator=(const Hold&) = delete;

    private:
        ReentrantMutex& mutex_;
    };

    // Outlived by both references. `seed` should be random.
    NearCache(const NearCacheOptions& options, Metrics& metrics, uint64_t seed);
    ~NearCache();
    NearCache(const NearCache&) = delete;
    NearCache& operator=(const NearCache&) = delete;
    // Several threads use it from now on. REQUIRES: one did, so far.
    void share() { mutex_.share(); }

    // One life of a connection that is told of changes. `proven_ms`: all changes that were made
    // before are known.
    SourceId open_source(uint64_t proven_ms);
    void renew_source(SourceId source, uint64_t proven_ms);
    // Nothing of it is served until it is renewed with a proof from after `now_ms`.
    void suspend_source(SourceId source, uint64_t now_ms);
    // All that came from it is void: find() serves nothing of it any more.
    void close_source(SourceId source);
    // What was stored of a key when Valkey was there, near_cache.stale_if_unavailable_ms after the
    // last proof at most: it may be untrue. Empty: nothing, or a write of the key is in flight.
    [[nodiscard]] std::string_view find_stale(const CacheQuery& query, uint64_t now_ms);
    // Valkey is back: of closed sources find_stale() serves nothing any more either.
    void drop_lost();

    [[nodiscard]] Found find(const CacheQuery& query, uint64_t now_ms);
    // A key that find() will be asked of soon, and the keys of the calls before, kept by the
    // caller. What find() will look at begins to be read from memory, a step with each call: the
    // newest key's bucket, the item that stands in the bucket of the one before, and the next in
    // its chain.
    struct Expected {
        KeyMark last = 0;
        KeyMark before = 0;
    };
    void expect(std::string_view key, Expected& expected) const;
    // Before the read is sent, whose changes `source` (or kNoSource) will be told of. 0: its reply
    // may not be stored. What was stored of the same is dropped, what was being read of the same is
    // void: it may be older. Each ticket is given back by commit() or abandon().
    [[nodiscard]] Ticket begin_fill(const CacheQuery& query, SourceId source);
    // Whether nothing else of its key is stored or being read. False: what is, or was before the
    // ticket became void, may be older than what the reply shows.
    bool is_alone(Ticket ticket) const;
    // `deadline_ms`: when the key expires, or UINT64_MAX.
    void commit(Ticket ticket, std::string_view reply, uint64_t deadline_ms, uint64_t now_ms);
    void abandon(Ticket ticket);
    bool is_being_read(std::string_view key) const;
    // Whether its reply may still be stored.
    bool is_open(Ticket ticket) const;
    KeyMark mark_of(std::string_view key) const { return table_.hash_of(key, {}); }
    // Whether anything of the key is stored or being read.
    bool holds(KeyMark mark) const;
    // Nothing is stored, being read or being written: there is nothing that could be untrue.
    bool is_idle() const;
    // False: the fill is closed already. Once it is closed the waiter is told, and forgotten; on
    // the thread of `loop`, or where it is closed if that is null.
    bool wait(Ticket ticket, FillWaiter& waiter, FillWaiterLoop* loop, uint64_t now_ms);
    // Whoever has waited since before this time reads for himself: what he waits for may be stuck.
    void end_long_waits(uint64_t begun_before_ms);
    void stop_waiting(Ticket ticket, const FillWaiter& waiter, FillWaiterLoop* loop);
    // Those whose fills were closed on other threads.
    void tell_waiters(FillWaiterLoop& loop);

    // Whether anything can be stored of the key: it is not too long for that.
    static bool may_hold(std::string_view key) { return key.size() <= kNamePartMax; }
    // A write in flight, from before it is sent until its reply is there or will not come. Each is
    // ended once. A barrier is a write of every key.
    [[nodiscard]] Write begin_write(std::string_view key, uint64_t now_ms);
    [[nodiscard]] Write begin_barrier(uint64_t now_ms);
    void end_write(Write write);
    // Of the key in every database.
    void invalidate(std::string_view key, InvalidationCause cause, uint64_t now_ms);
    void clear(InvalidationCause cause, uint64_t now_ms);
    // How often everything was invalidated.
    uint64_t clears() const;
    // Nothing is stored and nothing is found until resume(): a write of every key. Asking twice is
    // asking once.
    void suspend(uint64_t now_ms);
    void resume();
    bool is_suspended() const;
    // A client sees every command that reaches Valkey, so that all reads have to.
    void add_monitor() { ++monitors_; }
    void remove_monitor() { --monitors_; }
    bool has_monitors() const { return monitors_ > 0; }

    // Frees what can't be served any more in the next `buckets` of the table.
    void sweep(size_t buckets, uint64_t now_ms);
    Explanation explain(const CacheQuery& query, uint64_t now_ms);
    // For one who keeps an eye on a stored reply at a time; never given back.
    using WatchId = size_t;
    WatchId add_watch();
    // On what is stored of it, instead of on what was watched before.
    void watch(WatchId id, const CacheQuery& query);
    // Whether that very reply, not an equal one that was stored later, would be served now.
    bool is_watched_served(WatchId id, uint64_t now_ms) const;

    const NearCacheOptions& options() const { return options_; }
    size_t bytes() const;
    // Gives back what was kept for as many reads, writes and replies as there were once.
    void shrink();
    // Replies, the void ones that were not freed yet among them.
    size_t entries() const;
    // For tests: aborts if anything does not fit together.
    void check_invariants() const;

private:
    // Where entries come from. A source moves to a new slot when everything is invalidated; a slot
    // is used again when no entry of it is left.
    struct Slot {
        uint64_t proven_ms;
        uint32_t entries;
        SourceId source;
        bool is_open;
        bool is_lost;       // closed, and kept for find_stale()
        bool is_suspended;  // until its source is renewed
    };
    struct Source {
        uint16_t slot;
        bool is_open;
        uint64_t suspended_ms;  // what was proven until then does not renew it; 0: never was
    };
    struct Fill {
        uint32_t generation = 0;
        bool is_taken = false;
        bool is_open = false;
        uint8_t command = 0;
        uint16_t database = 0;
        SourceId source = 0;
        uint32_t next_in_key = kNone;
        Keys::value_type* key = nullptr;  // while it is open
        std::string arguments;
        struct Waiting {
            FillWaiter* waiter;
            FillWaiterLoop* loop;
            uint64_t since_ms;
        };
        std::vector<Waiting> waiters;
    };
    struct LastInvalidation {
        uint32_t hash = 0;
        InvalidationCause cause = InvalidationCause::None;
        uint64_t at_ms = 0;
    };

    void tell(const std::vector<Fill::Waiting>& waiters);
    size_t bytes_held() const { return table_.bytes() + newcomers_.bytes(); }
    Item* find_item(const CacheQuery& query);
    Item* find_head(std::string_view key);
    bool is_void(const Item* item, uint64_t now_ms) const;
    bool is_kept(const Item* item, uint64_t now_ms) const;
    void store(const Fill& fill, std::string_view reply, uint64_t deadline_ms, uint64_t now_ms);
    void link(Item* item, std::string_view key);
    void erase(Item* item);
    void drop_items(std::string_view key, uint32_t hash, uint64_t now_ms);
    bool takes_part(std::string_view key) const;
    bool has_items(KeyMark mark) const;
    void make_room(uint64_t now_ms);
    void step_hand(uint64_t now_ms);
    void judge_newcomer(uint64_t now_ms);
    bool has_newcomers_to_judge() const;
    void trim_newcomers();
    Item* take_newcomer();
    void report_size();
    bool are_newcomers_recorded() const;
    uint16_t take_slot(SourceId source, uint64_t proven_ms);
    // Whether every change to what came from it is known, or is younger than max_staleness_ms.
    bool is_proven(const Slot& slot, uint64_t now_ms) const {
        return !slot.is_suspended && since(slot.proven_ms, now_ms) < options_.max_staleness_ms;
    }
    void release_slot(uint16_t slot);
    void purge();

    Fill* find_fill(Ticket ticket);
    uint32_t find_open_fill(const KeyState& state, const CacheQuery& query) const;
    static bool is_same(const Fill& fill, const CacheQuery& query);
    void close_fill(uint32_t index);
    void void_fills(Write key, uint64_t now_ms);
    Keys::value_type& state_of(std::string_view key);
    void forget_if_idle(std::string_view key);
    void release_fill(Fill& fill);
    void count_name(size_t size);
    void note(uint32_t hash, InvalidationCause cause, uint64_t now_ms);

    mutable ReentrantMutex mutex_;  // held for all that follows
    std::atomic<uint32_t> monitors_{0};
    const NearCacheOptions& options_;
    Metrics& metrics_;
    bool is_suspended_ = false;
    uint64_t clears_ = 0;
    ItemTable table_;
    size_t entries_ = 0;  // items that are not heads
    size_t hand_ = 0;     // the bucket that eviction and sweep look at next
    Newcomers newcomers_;
    std::vector<const Item*> watched_;  // null: it is gone

    std::vector<Source> sources_;
    std::vector<Slot> slots_;
    std::vector<uint16_t> free_slots_;
    bool has_lost_ = false;  // a slot may be lost
    std::vector<SourceId> free_sources_;

    Keys keys_;
    static constexpr size_t kSpareKeys = 64;
    std::vector<Keys::node_type> spare_keys_;  // for the next ones, so that none is allocated
    uint32_t last_generation_ = 0;             // of a fill: no ticket is given twice
    std::vector<Fill> fills_;
    std::vector<uint32_t> free_fills_;
    size_t waiting_ = 0;  // for all of them together
    uint64_t barriers_ = 0;
    ThrashGuard guard_;

    static constexpr size_t kRemembered = 1024;
    std::array<LastInvalidation, kRemembered> last_;  // of keys, by hash
    LastInvalidation last_of_all_;
};

}  // namespace nearkey
