// The items of the near cache in one chained hash table that grows and shrinks by one bucket at a
// time (linear hashing: Litwin 1980), so that no operation ever waits for a rehash.
// Owned by NearCache; it owns its items. An item is one piece of memory: a header of 28 bytes,
// ItemLinks where its identity has arguments, then key, arguments and reply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace nearkey {

struct Item;

// Times of items are in ticks, cut to 32 bits: what matters is their difference.
constexpr uint64_t kItemTickMs = 16;
constexpr uint32_t tick_of(uint64_t ms) {
    return static_cast<uint32_t>(ms / kItemTickMs);
}

// Milliseconds; 0 if `then_ms` is still to come.
constexpr uint64_t since(uint64_t then_ms, uint64_t now_ms) {
    return now_ms > then_ms ? now_ms - then_ms : 0;
}

// The items of one key that are found by more than the key stand in a list behind its head.
struct ItemLinks {
    Item* previous;  // null: this is the head
    Item* next;
    uint32_t arguments_size;
};

struct Item {
    enum Flag : uint8_t {
        kUsesMask = 3,   // how often it was hit since the hand came by, up to 3
        kArguments = 4,  // has ItemLinks; hashed by key and arguments, listed behind a head
        kHead = 8,       // no reply: the head of such a list; has ItemLinks too
        kNew = 16,       // on probation: Newcomers has a record of it
        kShared = 32,    // SharedReplies may have it
    };

    Item* next;         // in its bucket
    uint32_t filled;    // when, in ticks of 16 ms
    uint32_t deadline;  // it is not served from then on; in the same ticks
    uint32_t reply_size;
    uint16_t source;
    uint16_t key_size;
    uint16_t database;
    uint8_t command;  // and protocol
    uint8_t flags;

    bool has(Flag flag) const { return (flags & flag) != 0; }
    ItemLinks& links();
    std::string_view key() const;
    std::string_view arguments() const;
    std::string_view reply() const;
};

// Whether, and as what, a stored reply may be shown to readers of shared memory.
enum class Sharing : uint8_t {
    None,
    Get,   // of GET
    Part,  // of MGET, of one key: nil where GET may have an error
};

// All that a reply depends on. The views are valid during the call.
struct CacheQuery {
    std::string_view key;
    std::string_view arguments;  // all others, in one unambiguous piece
    uint8_t command;             // a number of the caller's for (command, protocol)
    uint16_t database;
    Sharing sharing = Sharing::None;  // it does not depend on this
};
inline bool is_same(const Item& item, const CacheQuery& query) {
    return item.command == query.command && item.database == query.database &&
           !item.has(Item::kHead) && item.key() == query.key && item.arguments() == query.arguments;
}

struct ItemContent {
    std::string_view key;
    std::string_view arguments;
    std::string_view reply;
    uint8_t flags;
};

class ItemTable {
public:
    // A random `seed` keeps others from choosing keys that share a bucket.
    explicit ItemTable(uint64_t seed);
    ~ItemTable();

    // The other fields of the header are the caller's to fill.
    static Item* make(const ItemContent& content);

    // Without arguments it is the hash of the key's head, and of its items without arguments.
    uint32_t hash_of(std::string_view key, std::string_view arguments) const;
    uint32_t hash_of(const Item* item) const;
    // Takes ownership; the item's hash.
    uint32_t insert(Item* item);
    // Destroys it. REQUIRES: it is in the table.
    void erase(Item* item);
    // The first of the bucket that `hash` belongs to; others follow by Item::next.
    Item* chain(uint32_t hash) const { return bucket(index_of(hash)); }
    Item* chain_at(size_t bucket_index) const { return bucket(bucket_index); }
    // Prefetches the memory that chain() will read.
    [[gnu::always_inline]] void prefetch_chain(uint32_t hash) const {
        const size_t index = index_of(hash);
        __builtin_prefetch(&segments_[index / kSegment]->first[index % kSegment]);
    }
    // The same of an item; null is fine.
    [[gnu::always_inline]] static void prefetch(const Item* item) {
        const auto* const line = reinterpret_cast<const char*>(item);
        for (size_t i = 0; item != nullptr && i < kPrefetchedLines; ++i)
            __builtin_prefetch(line + i * kLineSize);
    }

    size_t size() const { return size_; }
    size_t buckets() const { return buckets_; }
    // Memory of the items and the buckets, with the allocator's overhead.
    size_t bytes() const { return item_bytes_ + segments_.size() * sizeof(Segment); }

private:
    static constexpr size_t kSegment = 4096;
    static constexpr size_t kLineSize = 64;
    // An item with a key and a reply of 140 bytes or so.
    static constexpr size_t kPrefetchedLines = 3;
    struct Segment {
        Item* first[kSegment];
    };

    size_t index_of(uint32_t hash) const {
        const size_t index = hash & (base_ * 2 - 1);
        return index < buckets_ ? index : index - base_;
    }
    Item*& bucket(size_t index) { return segments_[index / kSegment]->first[index % kSegment]; }
    Item* bucket(size_t index) const {
        return segments_[index / kSegment]->first[index % kSegment];
    }
    void split();
    void merge();

    unsigned char secret_[192];
    std::vector<std::unique_ptr<Segment>> segments_;
    size_t base_ = kSegment;     // a power of two: base_ <= buckets_ < 2 * base_
    size_t buckets_ = kSegment;  // those before buckets_ - base_ are split already
    size_t size_ = 0;
    size_t item_bytes_ = 0;
};

}  // namespace nearkey
