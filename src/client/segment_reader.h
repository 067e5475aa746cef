// Reads of a segment (include/nearkey/cache/segment.h): no system call, no lock, nothing written.
// Used by the client library, and by the tests that read beside the daemon's code. The order of the
// steps is the proof that a hit is true (docs/shared_memory.md). Whatever the bytes of the segment
// are, a read stays within it: each size and offset is checked on every read.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A mapped segment whose header was checked.
struct segment_view {
    const unsigned char* base;
    uint64_t size;
    uint64_t sources_at;
    uint64_t buckets_at;
    uint64_t items_at;
    uint64_t bucket_mask;
    uint64_t hash_seed;
    uint64_t incarnation;
};

enum segment_outcome {
    SEGMENT_HIT,
    SEGMENT_NIL,
    SEGMENT_MISS,   // not there
    SEGMENT_BUSY,   // it was being changed, again and again
    SEGMENT_STALE,  // its source has proven nothing for too long, or its deadline is over
    SEGMENT_OFF,    // nothing is served now: suspended, over, or the daemon is gone
};

struct segment_key {
    const void* bytes;
    size_t size;
    uint16_t database;
};

// What a read found.
struct segment_found {
    enum segment_outcome outcome;
    size_t size;  // of the value; above the capacity: nothing was copied
};

// Fills `view` from the header of `size` mapped bytes, which begin at a page. Returns 0, or -1 if
// this is no segment of this layout or does not fit together.
int segment_view_init(struct segment_view* view, const void* base, uint64_t size);

// Not 0: it is never served again; its daemon is gone, or has said so.
int segment_is_over(const struct segment_view* view);

// Not 0: nothing is served just now.
int segment_is_suspended(const struct segment_view* view);

// The value of one key as GET has it, copied to `buffer`. What the buffer holds if it is no hit is
// undefined.
struct segment_found segment_get(const struct segment_view* view, const struct segment_key* key,
                                 void* buffer, size_t capacity);

// What is copied of one key of many.
struct segment_slice {
    const void* key;
    size_t key_size;
    void* buffer;
    size_t capacity;
    struct segment_found found;
    // The reader's own, between its two passes.
    uint64_t bucket_at;
    uint64_t version;
    uint32_t epoch;
    uint16_t source;
    uint8_t refused_flags;
};

// The values of some keys as MGET has them: all as they were at one moment, or the outcome that
// kept one of them from it. SEGMENT_HIT: each slice is a hit or nil.
enum segment_outcome segment_mget(const struct segment_view* view, uint16_t database,
                                  struct segment_slice* slices, size_t count);

// Lets segment_now_ms() go by the processor's counter, where that is the kernel's own clock. Before
// it, and elsewhere, each call reads the clock.
void segment_clock_init(void);

// Milliseconds of CLOCK_BOOTTIME: not behind the clock, and up to 1 ms ahead of it.
uint64_t segment_now_ms(void);

#ifdef __cplusplus
}
#endif
