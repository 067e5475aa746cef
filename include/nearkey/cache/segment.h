// The segment: near-cache replies in memory that other processes read without asking (layout 1).
// Written by SharedReplies (cache/shared_replies.h) alone, read by src/client/segment_reader.h.
// Readers keep no state in it and write nothing, so one that dies or is stopped at any point harms
// nobody.
//
//   header (a page) | sources | buckets (a cache line each) | items (8-byte aligned)
//
// All places are offsets from the beginning. A bucket's version guards what its entries point to as
// well: an entry is taken out, under a new version, before the memory of its item is used again.
// Items are immutable. The order of a read is its proof (docs/shared_memory.md); so is the order of
// a change. C11 and C++20.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
#define NEARKEY_ALIGNED(bytes) alignas(bytes)
#else
#define NEARKEY_ALIGNED(bytes) _Alignas(bytes)
#endif

#define NEARKEY_SEGMENT_MAGIC UINT64_C(0x79656b7261656e01)  // "\1nearkey"
#define NEARKEY_SEGMENT_LAYOUT 1u

enum {
    NEARKEY_SEGMENT_PAGE = 4096,
    NEARKEY_SEGMENT_SOURCES = 65536,  // an item names its source by 16 bits
    NEARKEY_SEGMENT_ENTRIES = 7,      // of a bucket
    NEARKEY_SEGMENT_VALUE_MAX = 4096,
    NEARKEY_SEGMENT_KEY_MAX = 1024
};

// The first word of a robust mutex that the daemon holds for its life: the thread's number, and
// what the kernel makes of it when that thread is gone, before it closes the daemon's sockets.
#define NEARKEY_SEGMENT_OWNER_DIED UINT32_C(0x40000000)
#define NEARKEY_SEGMENT_OWNER_TID UINT32_C(0x3fffffff)

struct nearkey_segment_header {
    // Constant once the segment is handed out.
    uint64_t magic;
    uint32_t layout;
    uint32_t bucket_count;  // a power of two
    uint64_t size;          // bytes, all of it
    uint64_t sources_at;    // uint64_t[NEARKEY_SEGMENT_SOURCES]
    uint64_t buckets_at;
    uint64_t items_at;     // to the end
    uint64_t hash_seed;    // of XXH3_64bits_withSeed(key)
    uint64_t incarnation;  // random: which segment this is

    // Changes. A line of its own.
    NEARKEY_ALIGNED(64) uint32_t epoch;  // of the items that are served; 0: none is
    uint32_t is_over;                    // not 0: this segment is never served again
    uint64_t max_staleness_ms;
    // A robust pthread_mutex_t, whose first word is the owner's.
    NEARKEY_ALIGNED(64) uint32_t owner;
    unsigned char mutex_rest[60];
};

// A source: the time (ms of CLOCK_BOOTTIME) until which all changes that it tells of are known; 0:
// what came from it is not served.

struct nearkey_segment_bucket {
    uint64_t version;  // odd: it is being changed; 0: nothing was entered yet, or all is wiped
    // Tag (24 bits, the hash's highest) and offset (40 bits) of an item; 0: none.
    uint64_t entries[NEARKEY_SEGMENT_ENTRIES];
};

enum {
    NEARKEY_SEGMENT_NIL = 1,      // there is no such key; it has no value
    NEARKEY_SEGMENT_NOT_GET = 2,  // a nil of MGET: GET of the same key may answer with an error
};

struct nearkey_segment_item {
    uint64_t deadline_ms;  // of CLOCK_BOOTTIME: it is not served from then on
    uint32_t epoch;
    uint32_t value_size;
    uint16_t key_size;
    uint16_t database;
    uint16_t source;
    uint8_t flags;
    uint8_t command;  // the near cache's number of (command, protocol): whose item this mirrors
    // Then the key, filled up to 8 bytes, then the value, filled up to 8 bytes.
};

static inline uint64_t nearkey_segment_padded(uint64_t size) {
    return (size + 7) & ~UINT64_C(7);
}

static inline uint64_t nearkey_segment_tag(uint64_t hash) {
    return hash >> 40;
}

static inline uint64_t nearkey_segment_entry(uint64_t hash, uint64_t offset) {
    return (hash & ~UINT64_C(0xffffffffff)) | offset;
}

static inline uint64_t nearkey_segment_offset(uint64_t entry) {
    return entry & UINT64_C(0xffffffffff);
}

static inline uint64_t nearkey_segment_item_size(uint64_t key_size, uint64_t value_size) {
    return sizeof(struct nearkey_segment_item) + nearkey_segment_padded(key_size) +
           nearkey_segment_padded(value_size);
}
