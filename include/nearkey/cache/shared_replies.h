// The near cache's replies to GET and MGET in a segment (cache/segment.h): memory that other
// processes read without asking. At every moment a subset of what NearCache would serve.
// Owned by NearCache, whose lock is held for each call but is_active(); knows no clock and no
// system call. The memory is somebody else's (SharedSegment); without any it keeps the proofs of
// the sources and does nothing else.
//
// Items stand in a ring in the order of time. At its tail one that was used goes in again at the
// head, others leave; memory of items that are void is had back there, too.
//
// The one rule is the order of a change. An item is written before it is entered in its bucket; its
// memory is written again only once the entry was taken out under a new version. What is void is
// out of the segment before any reply shows it, and a source's proof is renewed after that.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/cache/options.h"
#include "nearkey/cache/segment.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace nearkey {

class SharedReplies {
public:
    // Of a reply in the near cache, that has no arguments but its key.
    struct Identity {
        std::string_view key;
        uint16_t database;
        uint8_t command;
    };
    struct Reply {
        std::string_view value;
        uint8_t flags;    // NEARKEY_SEGMENT_NIL ...
        uint16_t source;  // its slot
        uint64_t deadline_ms;
    };
    struct Numbers {
        uint64_t hash_seed;
        uint64_t incarnation;
    };

    static constexpr size_t kSizeMin = size_t{1} << 20;

    // Both outlive it.
    SharedReplies(const NearCacheOptions& options, Metrics& metrics)
        : options_(options), metrics_(metrics) {}

    // `memory`: zeros but for the header's owner, aligned to 64 bytes, a multiple of 4,096 and at
    // least kSizeMin. Outlives this, or end().
    void begin(std::span<char> memory, const Numbers& numbers);
    // Nothing of the memory is served any more, and it is not touched again.
    void end();
    // True between the two. Any thread may ask.
    bool is_active() const { return is_active_.load(std::memory_order_relaxed); }

    // Others may have to leave for it; what is too large is left out.
    void put(const Identity& identity, const Reply& reply);
    void remove(const Identity& identity);
    // True if it would be served while its source is proven.
    bool holds(const Identity& identity) const;
    // What came from this source's slot is proven until then; 0: it is not served.
    void set_source(uint16_t slot, uint64_t proven_ms);
    // All that is there is void.
    void clear();
    // Nothing is served until on() was called as often; all that is there is void.
    void off();
    void on();
    // near_cache.max_staleness_ms may be another.
    void apply_options();

    // For tests: each that would be served while its source is proven.
    void for_each(
        const std::function<void(const Identity& identity, const Reply& reply)>& visit) const;
    // For tests: aborts if anything does not fit together.
    void check_invariants() const;

private:
    using Header = nearkey_segment_header;
    using Bucket = nearkey_segment_bucket;
    using Item = nearkey_segment_item;
    static constexpr size_t kNone = SIZE_MAX;

    Header& header() const { return *reinterpret_cast<Header*>(memory_.data()); }
    uint64_t& word(uint64_t at) const { return *reinterpret_cast<uint64_t*>(memory_.data() + at); }
    Item item_at(uint64_t at) const;
    std::string_view key_at(uint64_t at, const Item& item) const;
    uint64_t hash_of(std::string_view key) const;
    Bucket& bucket_of(uint64_t hash) const;
    bool is_current(const Item& item) const;
    bool is_kept(const Item& item, const Identity& identity, const Reply& reply) const;
    size_t find(uint64_t hash, std::string_view key, uint16_t database) const;
    size_t find_at(const Bucket& bucket, uint64_t at) const;
    static void change(Bucket& bucket, size_t index, uint64_t entry);
    void enter(uint64_t hash, const Identity& identity, uint64_t at);
    size_t choose_victim(const Bucket& bucket) const;
    void write_item(uint64_t at, const Item& item, std::string_view key, std::string_view value);
    uint64_t write_words(uint64_t at, std::string_view bytes);
    uint64_t take_room(uint64_t size);
    void pass_tail(size_t& moves_left);
    void move_to_head(uint64_t at, const Item& item);
    bool is_used(uint64_t at) const { return used_[at / kUsedCell]; }
    void begin_epoch();
    void tell_epoch();

    // No two items begin in the same so many bytes.
    static constexpr uint64_t kUsedCell = 16;

    const NearCacheOptions& options_;
    Metrics& metrics_;
    std::atomic<bool> is_active_{false};
    std::vector<uint64_t> proofs_;  // of the sources, by slot
    uint32_t epoch_ = 1;            // never 0
    uint32_t offs_ = 0;             // off() without on()

    std::span<char> memory_;
    uint64_t items_at_ = 0;
    uint64_t head_ = 0;     // where the next item goes
    uint64_t tail_ = 0;     // the oldest
    uint64_t wrap_at_ = 0;  // the items from tail_ end there, if the ring has come round
    bool is_wrapped_ = false;
    std::vector<bool> used_;  // hit over a socket since it came to the head
};

}  // namespace nearkey
