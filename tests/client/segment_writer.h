// Makes and changes a segment (nearkey/cache/segment.h), for the library's tests, benchmarks and
// segment_server: the order of its steps is the daemon's, what it stores the caller decides.
// One thread writes at a time. Items are cut from memory once, and used again by size.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SEGMENT_WRITER_CLASSES = 90 };  // of 64 bytes each: the largest item has 5,152

struct segment_writer {
    unsigned char* base;
    uint64_t size;
    uint64_t bucket_count;
    uint64_t buckets_at;
    uint64_t hash_seed;
    uint64_t items_end;                           // behind it nothing was cut yet
    uint64_t free_items[SEGMENT_WRITER_CLASSES];  // lists, linked by the items' first words
    uint32_t epoch;                               // of what is written; also while it is off
};

struct segment_reply {
    const void* key;
    size_t key_size;
    const void* value;
    size_t value_size;
    uint64_t deadline_ms;
    uint16_t database;
    uint16_t source;
    uint8_t flags;
};

// A reply of database 0 that never expires, from source 0. The views are the caller's.
struct segment_reply segment_reply_of(const void* key, size_t key_size, const void* value,
                                      size_t value_size);

// Bytes of a segment with so many buckets, and so many bytes of items.
uint64_t segment_writer_size(uint64_t bucket_count, uint64_t item_bytes);

// Writes the header into `size` zeroed bytes, aligned to a page: it is owned by this thread, on in
// its first epoch, and no source has proven anything.
void segment_writer_init(struct segment_writer* writer, void* base, uint64_t size,
                         uint64_t bucket_count);

// Enters a reply, in place of that of the same key. A full bucket gives up its first entry.
// Returns -1 if there is no memory left: segment_writer_clear().
int segment_writer_put(struct segment_writer* writer, const struct segment_reply* reply);

// Makes a reply void. 1: it was there.
int segment_writer_remove(struct segment_writer* writer, const void* key, size_t key_size,
                          uint16_t database);

// All are void; a new epoch.
void segment_writer_clear(struct segment_writer* writer);

// Nothing is served until it is on again, in a new epoch.
void segment_writer_set_on(struct segment_writer* writer, int is_on);

void segment_writer_set_source(struct segment_writer* writer, uint16_t source, uint64_t proven_ms);
void segment_writer_set_staleness(struct segment_writer* writer, uint64_t max_staleness_ms);

// What the kernel does when the daemon ends, and what it does itself.
void segment_writer_set_owner(struct segment_writer* writer, uint32_t owner);
void segment_writer_set_over(struct segment_writer* writer);

#ifdef __cplusplus
}
#endif
