#define _GNU_SOURCE  // CLOCK_BOOTTIME
#include "segment_reader.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nearkey/cache/segment.h"
#include "segment_hooks.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

// Tests have a clock of their own.
#ifdef SEGMENT_NOW_MS
uint64_t SEGMENT_NOW_MS(void);
#else
#define SEGMENT_NOW_MS segment_now_ms

// The vDSO's: no system call. Not the coarse one: it does not count a suspended host's sleep.
static uint64_t read_clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#ifdef __x86_64__

// Under a millisecond wherever the counter runs at 0.1 GHz or more.
#define NEAR_TICKS UINT64_C(100000)

// The thread's last reading of the clock, and of the processor's counter before it.
static _Thread_local struct {
    uint64_t ticks;
    uint64_t ms;
} last_reading;
static int has_counter;

void segment_clock_init(void) {
    char name[8] = "";
    const int file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                          O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    const ssize_t size = read(file, name, sizeof name);
    close(file);
    __atomic_store_n(&has_counter, size == 4 && memcmp(name, "tsc\n", 4) == 0, __ATOMIC_RELAXED);
}

// Where the kernel's own clock is the counter it runs evenly, and alike on all processors; one
// that was set back is far off, and has the clock read. The counter may be read some instructions
// early: the rest of the millisecond is more than that.
uint64_t segment_now_ms(void) {
    if (__atomic_load_n(&has_counter, __ATOMIC_RELAXED) == 0) return read_clock_ms();
    const uint64_t ticks = __builtin_ia32_rdtsc();
    if (ticks - last_reading.ticks < NEAR_TICKS) return last_reading.ms + 1;
    last_reading.ticks = ticks;
    return last_reading.ms = read_clock_ms();
}

#else

void segment_clock_init(void) {
}

uint64_t segment_now_ms(void) {
    return read_clock_ms();
}

#endif
#endif

enum { TRIES = 4, WORD = 8, HEADER_SIZE = sizeof(struct nearkey_segment_item) };

// Of memory that the daemon may be changing.
#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

// Until when what was found is true.
struct until {
    uint64_t proven_ms;    // the oldest of the sources; 0: one is closed
    uint64_t deadline_ms;  // the first
};

struct item {
    uint64_t deadline_ms;
    uint64_t value_at;
    uint32_t value_size;
    uint32_t epoch;
    uint16_t source;
    uint8_t flags;
};

static uint64_t load_word(const struct segment_view* view, uint64_t at) {
    return __atomic_load_n((const uint64_t*)(view->base + at), __ATOMIC_RELAXED);
}

static const struct nearkey_segment_header* header_of(const struct segment_view* view) {
    return (const struct nearkey_segment_header*)view->base;
}

static int is_power_of_two(uint64_t number) {
    return number != 0 && (number & (number - 1)) == 0;
}

// Of a part of `size` bytes at `at`, between the page of the header and the end.
static int is_within(const struct segment_view* view, uint64_t at, uint64_t size) {
    return at >= NEARKEY_SEGMENT_PAGE && at % WORD == 0 && at <= view->size &&
           size <= view->size - at;
}

int segment_view_init(struct segment_view* view, const void* base, uint64_t size) {
    if (size < NEARKEY_SEGMENT_PAGE || size > UINT64_C(1) << 40 || size % WORD != 0) return -1;
    struct nearkey_segment_header header;
    memcpy(&header, base, offsetof(struct nearkey_segment_header, epoch));
    if (header.magic != NEARKEY_SEGMENT_MAGIC || header.layout != NEARKEY_SEGMENT_LAYOUT ||
        header.size != size || !is_power_of_two(header.bucket_count)) {
        return -1;
    }
    *view = (struct segment_view){
        .base = base,
        .size = size,
        .sources_at = header.sources_at,
        .buckets_at = header.buckets_at,
        .items_at = header.items_at,
        .bucket_mask = header.bucket_count - UINT64_C(1),
        .hash_seed = header.hash_seed,
        .incarnation = header.incarnation,
    };
    const uint64_t buckets_size = header.bucket_count * sizeof(struct nearkey_segment_bucket);
    const int is_sound =
        is_within(view, view->sources_at, NEARKEY_SEGMENT_SOURCES * sizeof(uint64_t)) &&
        is_within(view, view->buckets_at, buckets_size) &&
        view->buckets_at % sizeof(struct nearkey_segment_bucket) == 0 &&
        is_within(view, view->items_at, 0);
    return is_sound ? 0 : -1;
}

static int is_owned(const struct nearkey_segment_header* header) {
    const uint32_t owner = __atomic_load_n(&header->owner, __ATOMIC_ACQUIRE);
    return (owner & NEARKEY_SEGMENT_OWNER_DIED) == 0 && (owner & NEARKEY_SEGMENT_OWNER_TID) != 0;
}

int segment_is_over(const struct segment_view* view) {
    if (SEGMENT_BREAKS(TOMBSTONE)) return 0;
    const struct nearkey_segment_header* header = header_of(view);
    return !is_owned(header) || __atomic_load_n(&header->is_over, __ATOMIC_ACQUIRE) != 0;
}

static uint32_t load_epoch(const struct segment_view* view) {
    return __atomic_load_n(&header_of(view)->epoch, __ATOMIC_ACQUIRE);
}

int segment_is_suspended(const struct segment_view* view) {
    return load_epoch(view) == 0;
}

// Bytes of a word, the lowest first in memory; a compiler makes it one instruction or two.
static uint64_t in_memory_order(uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

// The first bytes of a word: fewer than 8.
static void store_part(unsigned char* to, uint64_t word, size_t size) {
    word = in_memory_order(word);
    if ((size & 4) != 0) {
        const uint32_t half = (uint32_t)in_memory_order(word);
        memcpy(to, &half, 4);
        to += 4;
        word >>= 32;
    }
    for (size &= 3; size > 0; --size, word >>= 8)
        *to++ = (unsigned char)word;
}

// The last bytes of a key, fewer than 8, as the first ones of a word.
static uint64_t load_part(const struct segment_key* key, size_t size) {
    const unsigned char* end = (const unsigned char*)key->bytes + key->size;
    uint64_t word = 0;
    if (key->size >= WORD) {
        memcpy(&word, end - WORD, WORD);
        return in_memory_order(word) >> (WORD - size) * 8;
    }
    for (size_t i = 0; i < size; ++i)
        word |= (uint64_t) * (end - size + i) << (8 * i);
    return word;
}

// Of words that the daemon may be changing: each is read once, as a whole.
static void copy_words(unsigned char* to, const struct segment_view* view, uint64_t at,
                       size_t size) {
    const uint64_t* from = (const uint64_t*)(view->base + at);
    const size_t words = size / WORD;
#pragma GCC unroll 4
    for (size_t i = 0; i < words; ++i) {
        const uint64_t word = __atomic_load_n(from + i, __ATOMIC_RELAXED);
        memcpy(to + i * WORD, &word, WORD);
        SEGMENT_PAUSE();
    }
    if (size % WORD == 0) return;
    store_part(to + words * WORD, __atomic_load_n(from + words, __ATOMIC_RELAXED), size % WORD);
}

static int has_key(const struct segment_view* view, uint64_t at, const struct segment_key* key) {
    const unsigned char* bytes = key->bytes;
    const size_t words = key->size / WORD;
    for (size_t i = 0; i < words; ++i) {
        uint64_t word;
        memcpy(&word, bytes + i * WORD, WORD);
        if (word != load_word(view, at + i * WORD)) return 0;
    }
    const size_t left = key->size % WORD;
    if (left == 0) return 1;
    const uint64_t stored = in_memory_order(load_word(view, at + words * WORD));
    return (stored ^ load_part(key, left)) << (WORD - left) * 8 == 0;
}

// Reads what an entry points to; 0: it is not this key, or the entry is being changed.
static int read_item(const struct segment_view* view, uint64_t entry, const struct segment_key* key,
                     struct item* item) {
    const uint64_t at = nearkey_segment_offset(entry);
    if (at < view->items_at || at % WORD != 0 || at > view->size - HEADER_SIZE) return 0;
    const struct nearkey_segment_item* header =
        (const struct nearkey_segment_item*)(view->base + at);
    if (LOAD(header->key_size) != key->size || LOAD(header->database) != key->database) return 0;
    item->value_size = LOAD(header->value_size);
    if (item->value_size > NEARKEY_SEGMENT_VALUE_MAX) return 0;
    const uint64_t item_size = nearkey_segment_item_size(key->size, item->value_size);
    if (item_size > view->size - at) return 0;
    item->deadline_ms = LOAD(header->deadline_ms);
    item->epoch = LOAD(header->epoch);
    item->source = LOAD(header->source);
    item->flags = LOAD(header->flags);
    item->value_at = at + HEADER_SIZE + nearkey_segment_padded(key->size);
    return has_key(view, at + HEADER_SIZE, key);
}

static uint64_t bucket_of(const struct segment_view* view, uint64_t hash) {
    return view->buckets_at + (hash & view->bucket_mask) * sizeof(struct nearkey_segment_bucket);
}

static uint64_t load_version(const struct segment_view* view, uint64_t bucket_at) {
    return __atomic_load_n((const uint64_t*)(view->base + bucket_at), __ATOMIC_ACQUIRE);
}

static uint64_t load_proof(const struct segment_view* view, uint16_t source) {
    const uint64_t at = view->sources_at + source * sizeof(uint64_t);
    return __atomic_load_n((const uint64_t*)(view->base + at), __ATOMIC_ACQUIRE);
}

// What was read before it was not void when its source's proof was read.
static int is_unchanged(const struct segment_view* view, uint64_t bucket_at, uint64_t version) {
    if (SEGMENT_BREAKS(VALIDATION)) return 1;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return load_word(view, bucket_at) == version;
}

// Copies the value that an entry points to. SEGMENT_MISS: the entry is of another key, or not now.
static enum segment_outcome try_entry(const struct segment_view* view, uint64_t entry,
                                      const struct segment_key* key, struct segment_slice* slice,
                                      struct until* until) {
    struct item item;
    SEGMENT_PAUSE();
    if (!read_item(view, entry, key, &item)) return SEGMENT_MISS;
    if ((item.flags & slice->refused_flags) != 0) return SEGMENT_MISS;
    SEGMENT_PAUSE();
    const int is_nil = (item.flags & NEARKEY_SEGMENT_NIL) != 0;
    if (!is_nil && item.value_size <= slice->capacity) {
        copy_words(slice->buffer, view, item.value_at, item.value_size);
    }
    SEGMENT_PAUSE();
    uint64_t proven_ms = load_proof(view, item.source);
    const uint32_t epoch = load_epoch(view);
    SEGMENT_PAUSE();
    if (!is_unchanged(view, slice->bucket_at, slice->version)) return SEGMENT_BUSY;
    if (SEGMENT_BREAKS(LEASE_LAST)) {
        SEGMENT_PAUSE();
        proven_ms = load_proof(view, item.source);
    }
    if (epoch == 0) return SEGMENT_OFF;
    if (epoch != item.epoch) return SEGMENT_MISS;
    if (proven_ms < until->proven_ms) until->proven_ms = proven_ms;
    if (item.deadline_ms < until->deadline_ms) until->deadline_ms = item.deadline_ms;
    slice->epoch = epoch;
    slice->source = item.source;
    slice->found.size = is_nil ? 0 : item.value_size;
    return is_nil ? SEGMENT_NIL : SEGMENT_HIT;
}

// One try. SEGMENT_BUSY: again.
static enum segment_outcome try_bucket(const struct segment_view* view, uint64_t hash,
                                       const struct segment_key* key, struct segment_slice* slice,
                                       struct until* until) {
    slice->bucket_at = bucket_of(view, hash);
    slice->version = load_version(view, slice->bucket_at);
    // Nothing was entered yet, or all of it is wiped.
    if (slice->version == 0) return SEGMENT_MISS;
    if (slice->version % 2 != 0 && !SEGMENT_BREAKS(VALIDATION)) return SEGMENT_BUSY;
    SEGMENT_PAUSE();
    // All entries first, for the branch predictor: which of them it is cannot be foreseen.
    uint64_t entries[NEARKEY_SEGMENT_ENTRIES];
    unsigned matches = 0;
#pragma GCC unroll 7
    for (unsigned i = 0; i < NEARKEY_SEGMENT_ENTRIES; ++i) {
        entries[i] = load_word(view, slice->bucket_at + WORD + i * WORD);
        matches |= (unsigned)(nearkey_segment_tag(entries[i] ^ hash) == 0) << i;
    }
    for (; matches != 0; matches &= matches - 1) {
        const uint64_t entry = entries[__builtin_ctz(matches)];
        const enum segment_outcome outcome = try_entry(view, entry, key, slice, until);
        if (outcome != SEGMENT_MISS) return outcome;
    }
    return SEGMENT_MISS;
}

static enum segment_outcome find(const struct segment_view* view, const struct segment_key* key,
                                 struct segment_slice* slice, struct until* until) {
    if (key->size > NEARKEY_SEGMENT_KEY_MAX) return SEGMENT_MISS;
    const uint64_t hash = XXH3_64bits_withSeed(key->bytes, key->size, view->hash_seed);
    enum segment_outcome outcome = SEGMENT_BUSY;
    for (int i = 0; i < TRIES && outcome == SEGMENT_BUSY; ++i)
        outcome = try_bucket(view, hash, key, slice, until);
    return outcome;
}

// The clock is read last, behind a branch on what was read before it: that is as old at most.
static int is_true_at(const struct segment_view* view, const struct until* until, uint64_t now) {
    const uint64_t bound_ms = __atomic_load_n(&header_of(view)->max_staleness_ms, __ATOMIC_RELAXED);
    // A proof may be of a moment later than the clock was read at: none is older then.
    const uint64_t age_ms = now > until->proven_ms ? now - until->proven_ms : 0;
    return until->proven_ms != 0 && age_ms < bound_ms && now < until->deadline_ms;
}

struct segment_found segment_get(const struct segment_view* view, const struct segment_key* key,
                                 void* buffer, size_t capacity) {
    if (segment_is_over(view)) return (struct segment_found){SEGMENT_OFF, 0};
    SEGMENT_PAUSE();
    const uint64_t first_now = SEGMENT_BREAKS(CLOCK_FIRST) ? SEGMENT_NOW_MS() : 0;
    struct segment_slice slice = {
        .buffer = buffer, .capacity = capacity, .refused_flags = NEARKEY_SEGMENT_NOT_GET};
    struct until until = {UINT64_MAX, UINT64_MAX};
    const enum segment_outcome outcome = find(view, key, &slice, &until);
    if (outcome != SEGMENT_HIT && outcome != SEGMENT_NIL) return (struct segment_found){outcome, 0};
    SEGMENT_PAUSE();
    const uint64_t now = SEGMENT_BREAKS(CLOCK_FIRST) ? first_now : SEGMENT_NOW_MS();
    if (!is_true_at(view, &until, now)) return (struct segment_found){SEGMENT_STALE, 0};
    return (struct segment_found){outcome, slice.found.size};
}

enum segment_outcome segment_mget(const struct segment_view* view, uint16_t database,
                                  struct segment_slice* slices, size_t count) {
    if (segment_is_over(view)) return SEGMENT_OFF;
    struct until until = {UINT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < count; ++i) {
        struct segment_slice* slice = &slices[i];
        const struct segment_key key = {slice->key, slice->key_size, database};
        slice->refused_flags = 0;
        slice->found.outcome = find(view, &key, slice, &until);
        if (slice->found.outcome != SEGMENT_HIT && slice->found.outcome != SEGMENT_NIL)
            return slice->found.outcome;
        SEGMENT_PAUSE();
    }
    // All at one moment: behind the last copy none was void since its own.
    for (size_t i = 0; i < count && !SEGMENT_BREAKS(ONE_MOMENT); ++i) {
        const struct segment_slice* slice = &slices[i];
        if (load_proof(view, slice->source) == 0 || load_epoch(view) != slice->epoch ||
            !is_unchanged(view, slice->bucket_at, slice->version)) {
            return SEGMENT_BUSY;
        }
    }
    return is_true_at(view, &until, SEGMENT_NOW_MS()) ? SEGMENT_HIT : SEGMENT_STALE;
}
