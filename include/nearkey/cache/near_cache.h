// Replies that nearkey may answer itself, and the rules that keep them true.
// Owned by Daemon. Knows no sockets, no loop and no clock: times are the caller's, in milliseconds
// on one clock that never goes back and counts a suspended host's sleep. One for all event loops:
// each call is atomic, and callers that need several in one step take a Hold.
//
//   find ─Hit──▶ answer                       invalidate(key): what is stored is dropped,
//        ─Miss─▶ begin_fill ─▶ read upstream    what is being filled will not be stored
//                commit ◀───── reply          begin_write: the same, and until end_write
//                                               the key is neither stored nor found
//
// The one rule: a reply is stored only if nothing has invalidated its key since before the read was
// sent, and is served only while its source (one life of the connection that is told of changes) is
// open and has proven within max_staleness_ms that no news is outstanding.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/base/reentrant_mutex.h"
#include "nearkey/cache/fill_waiter.h"
#include "nearkey/cache/invalidation.h"
#include "nearkey/cache/keys_in_flight.h"
#include "nearkey/cache/options.h"
#include "nearkey/cache/reply_sources.h"
#include "nearkey/cache/shared_replies.h"
#include "nearkey/cache/slot_voids.h"
#include "nearkey/cache/stored_replies.h"
#include "nearkey/cache/thrash_guard.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace nearkey {

class NearCache {
public:
    using KeyMark = KeysInFlight::KeyMark;
    using Write = KeysInFlight::Write;
    using Ticket = KeysInFlight::Ticket;
    using SourceId = ReplySources::Id;
    static constexpr SourceId kNoSource = ReplySources::kNone;

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
    // The reason why nothing is stored of a key.
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
        bool is_shared;           // readers of shared memory have it
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

    // Keeps an eye on a stored reply at a time. Never given back.
    class Watch {
    public:
        explicit Watch(NearCache& cache);
        // Watches the stored reply to this query, instead of the one before.
        void set(const CacheQuery& query);
        // True if that very reply, not an equal one that was stored later, would be served now.
        bool is_served(uint64_t now_ms) const;
        // True if everything was invalidated since set().
        bool was_cleared() const;

    private:
        NearCache& cache_;
        size_t id_;
        uint64_t clears_ = 0;
    };

    // Outlived by both references. `seed` should be random.
    NearCache(const NearCacheOptions& options, Metrics& metrics, uint64_t seed);
    // Several threads use it from now on. REQUIRES: one did, so far.
    void share() { mutex_.share(); }

    // One life of a connection that is told of changes. `proven_ms`: all changes that were made
    // before are known.
    SourceId open_source(uint64_t proven_ms);
    void renew_source(SourceId source, uint64_t proven_ms) {
        const Hold hold(*this);
        sources_.renew(source, proven_ms);
    }
    // Nothing of it is served until it is renewed with a proof from after `now_ms`.
    void suspend_source(SourceId source, uint64_t now_ms) {
        const Hold hold(*this);
        sources_.suspend(source, now_ms);
    }
    // Replies from it are void: find() serves none of them any more.
    void close_source(SourceId source);
    // A reply that was stored before Valkey went away, near_cache.stale_if_unavailable_ms after the
    // last proof at most: it may be untrue. Empty: none, or a write of the key is in flight.
    [[nodiscard]] std::string_view find_stale(const CacheQuery& query, uint64_t now_ms);
    // Valkey is back: find_stale() serves nothing from closed sources any more.
    void drop_lost() {
        const Hold hold(*this);
        sources_.drop_lost();
    }

    [[nodiscard]] Found find(const CacheQuery& query, uint64_t now_ms);
    // Keys that find() will be asked for soon, kept by the caller. The memory that find() will read
    // is prefetched, a step with each call: the newest key's bucket, the item that stands in the
    // bucket of the one before, and the next in its chain.
    struct Expected {
        KeyMark last = 0;
        KeyMark before = 0;
    };
    void expect(std::string_view key, Expected& expected) const;
    // Called before the read is sent; `source` (or kNoSource) will be told of changes to it. 0: its
    // reply may not be stored. A stored reply and an open fill of the same query are dropped, for
    // they may be older. Each ticket is given back by commit() or abandon().
    [[nodiscard]] Ticket begin_fill(const CacheQuery& query, SourceId source);
    // True if nothing else of its key is stored or being read. False: something else is, or was
    // before the ticket became void, and may be older than the reply.
    bool is_alone(Ticket ticket) const;
    // `deadline_ms`: when the key expires, or UINT64_MAX.
    void commit(Ticket ticket, std::string_view reply, uint64_t deadline_ms, uint64_t now_ms);
    void abandon(Ticket ticket);
    bool is_being_read(std::string_view key) const;
    // True if its reply may still be stored.
    bool is_open(Ticket ticket) const;
    KeyMark mark_of(std::string_view key) const { return replies_.table().hash_of(key, {}); }
    // True if anything of the key is stored or being read.
    bool holds(KeyMark mark) const;
    // Nothing is stored, being read or being written: there is nothing that could be untrue.
    bool is_idle() const;
    // False: the fill is closed already. Once it is closed the waiter is told, and forgotten; on
    // the thread of `loop`, or where it is closed if that is null.
    bool wait(Ticket ticket, FillWaiter& waiter, FillWaiterLoop* loop, uint64_t now_ms);
    // Tells the waiters since before this time to read for themselves: their fill may be stuck.
    void end_long_waits(uint64_t begun_before_ms) {
        const Hold hold(*this);
        in_flight_.end_long_waits(begun_before_ms);
    }
    void stop_waiting(Ticket ticket, const FillWaiter& waiter, FillWaiterLoop* loop);
    // Tells those waiters of this loop whose fills were closed on other threads.
    void tell_waiters(FillWaiterLoop& loop) {
        const Hold hold(*this);
        loop.tell_all();
    }

    // A write in flight, from before it is sent until its reply is there or will not come. Each is
    // ended once. A barrier is a write of every key.
    [[nodiscard]] Write begin_write(std::string_view key, uint64_t now_ms);
    [[nodiscard]] Write begin_barrier(uint64_t now_ms);
    void end_write(Write write);
    // Invalidates the key in every database.
    void invalidate(std::string_view key, InvalidationCause cause, uint64_t now_ms);
    void clear(InvalidationCause cause, uint64_t now_ms);
    // Slots of a cluster came to another server, or the owner refused one of their keys: what is
    // stored of them is void, and what is being read will not be stored. Their former server does
    // not tell of keys that were not there.
    void void_slots(std::span<const uint16_t> slots, SlotVoids::SlotOf slot_of, uint64_t now_ms);
    // Nothing is stored and nothing is found until resume(): a write of every key. Asking twice is
    // asking once.
    void suspend(uint64_t now_ms);
    void resume();
    bool is_suspended() const;
    // A client sees every command that reaches Valkey, so all reads must go there.
    void add_monitor();
    void remove_monitor();
    bool has_monitors() const { return monitors_ > 0; }

    // Frees the items that can't be served any more in the next `buckets` of the table.
    void sweep(size_t buckets, uint64_t now_ms);
    Explanation explain(const CacheQuery& query, uint64_t now_ms);
    const NearCacheOptions& options() const { return options_; }
    // What other processes read. A Hold is needed but for is_active().
    SharedReplies& shared_replies() { return shared_; }
    size_t bytes() const { return metrics_.near_cache_bytes; }
    // Gives back memory that was kept for a burst of reads, writes and replies.
    void shrink();
    // Replies, the void ones that were not freed yet among them.
    size_t entries() const {
        const Hold hold(*this);
        return replies_.size();
    }
    // For tests: aborts if anything does not fit together.
    void check_invariants() const;

private:
    void free_slots();
    bool is_void(const CacheQuery& query, const Item& item, uint64_t now_ms) const {
        return sources_.is_void(item, now_ms) || slot_voids_.is_void(query.key, item);
    }

    mutable ReentrantMutex mutex_;  // held for all that follows
    std::atomic<uint32_t> monitors_{0};
    const NearCacheOptions& options_;
    Metrics& metrics_;
    bool is_suspended_ = false;
    uint64_t clears_ = 0;  // how often everything was invalidated
    ThrashGuard guard_;
    SharedReplies shared_;
    ReplySources sources_;
    SlotVoids slot_voids_;
    StoredReplies replies_;
    KeysInFlight in_flight_;
    InvalidationLog log_;
};

}  // namespace nearkey
