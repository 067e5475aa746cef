// The stored replies, within near_cache.memory: which may come in, and which have to leave.
// Owned by NearCache. The one rule: an item is in the table, in the list of its key and in the
// counts of its source, or in none of them.
//
// Eviction is S3-FIFO's idea without its links: a tenth are newcomers, which leave first unless
// they were hit; one that comes back soon stays; the others go by a clock's hand over the hash
// table. scripts/bench --policies, at equal memory, Zipf with 30 % scans: LRU 48.8 %, SIEVE 53.2 %,
// S3-FIFO 54.3 %, this 54.5 %; a loop of twice the cache: 46 %, the others 0 (docs/decisions.md).
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/cache/item_table.h"
#include "nearkey/cache/newcomers.h"
#include "nearkey/cache/options.h"
#include "nearkey/cache/reply_sources.h"
#include "nearkey/cache/shared_replies.h"
#include "nearkey/cache/thrash_guard.h"

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace nearkey {

class StoredReplies {
public:
    static constexpr size_t kNamePartMax = UINT16_MAX;  // of key and arguments, each

    struct NewReply {
        CacheQuery query;
        ReplySources::Id source;
        std::string_view reply;
        uint64_t deadline_ms;
    };

    // What it works with. All of it outlives it; `shared` is told of every reply that leaves.
    struct Parts {
        const NearCacheOptions& options;
        Metrics& metrics;
        ReplySources& sources;
        ThrashGuard& guard;
        SharedReplies& shared;
    };
    // `seed` should be random.
    StoredReplies(const Parts& parts, uint64_t seed);
    static bool may_hold(std::string_view key) { return key.size() <= kNamePartMax; }

    // Void ones, too. Null: there is none.
    Item* find(const CacheQuery& query) const {
        Item* item = table_.chain(table_.hash_of(query.key, query.arguments));
        while (item != nullptr && !is_same(*item, query))
            item = item->next;
        return item;
    }
    // True if anything of a key with this hash is stored.
    bool has_any(uint32_t key_hash) const;
    // Others may have to leave for it; a reply that is too large or expired is not stored.
    void put(const NewReply& fresh, uint64_t now_ms);
    void erase(Item* item);
    // Readers of shared memory may have it too. REQUIRES: it would be served, or its source is
    // unproven.
    void share(Item& item, Sharing sharing, uint64_t now_ms);
    // Drops all replies of the key, whose hash is `hash`.
    void drop(std::string_view key, uint32_t hash, uint64_t now_ms);
    // Frees the items that can't be served any more in the next `buckets` of the table.
    void sweep(size_t buckets, uint64_t now_ms);
    void shrink();

    // One stored reply at a time is watched by each.
    size_t add_watch();
    void watch(size_t id, const CacheQuery& query) { watched_[id] = find(query); }
    // Null: it is gone.
    const Item* watched(size_t id) const { return watched_[id]; }

    const ItemTable& table() const { return table_; }
    // Stored replies: heads do not count.
    size_t size() const { return size_; }
    // For tests: aborts if anything does not fit together.
    void check_invariants() const;

private:
    size_t bytes() const { return table_.bytes() + newcomers_.bytes(); }
    Item* find_head(std::string_view key);
    void link(Item* item, std::string_view key);
    void make_room(uint64_t now_ms);
    void step_hand(uint64_t now_ms);
    void judge_newcomer(uint64_t now_ms);
    bool has_newcomers_to_judge() const;
    void trim_newcomers();
    Item* take_newcomer();
    bool are_newcomers_recorded() const;
    void report_size();
    void check_shared() const;

    const NearCacheOptions& options_;
    Metrics& metrics_;
    ReplySources& sources_;
    ThrashGuard& guard_;
    SharedReplies& shared_;
    ItemTable table_;
    size_t size_ = 0;  // items that are not heads
    size_t hand_ = 0;  // the bucket that eviction and sweep look at next
    Newcomers newcomers_;
    std::vector<const Item*> watched_;
};

}  // namespace nearkey
