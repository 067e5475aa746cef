// The handle behind include/nearkey/client.h: the segment that it reads, and what it counts.
//
// A mapping, once read from, stays until the handle is closed: other threads may be in it. One that
// is replaced becomes zeros in place, which no reader takes for anything, and which need no memory.
#define _GNU_SOURCE  // MADV_WIPEONFORK, syscall
#include "nearkey/client.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client_url.h"
#include "handout.h"
#include "segment_reader.h"

enum {
    STRIPES = 64,        // of counters: threads beyond share, and may lose a count
    REPLACED_MAX = 256,  // mappings of one handle
    REFRESH_EVERY_MS = 1000,
    TIMEOUT_MS = 1000,
    SAMPLE_EVERY = 1024,
    CLOCK_READINGS = 32,
};

// A line of its own for each thread.
struct stripe {
    alignas(64) uint64_t hits;
    uint64_t misses;
    uint64_t stale;
    uint64_t off;
    uint64_t samples;
    uint64_t hits_until_sample;  // 0: not yet drawn
    uint64_t random;
};

// What belongs to a process: after fork() the child finds zeros (MADV_WIPEONFORK).
struct process {
    uint32_t is_known;  // its time namespace is that of the mapping
    uint32_t is_refreshing;
    uint64_t refreshed_ms;
    struct stripe stripes[STRIPES];
};

struct mapping {
    struct mapping* next;
    struct handout handout;
    uint16_t database;  // of the keys that are read
};

struct namespace_id {
    dev_t device;
    ino_t inode;  // 0: not to be had
};

struct nearkey_cache {
    const struct mapping* current;  // null: off
    struct process* process;
    struct mapping* mappings;  // all of them, the newest first
    size_t mapping_count;
    const char* why_off;  // while `current` is null
    struct namespace_id time_namespace;
    struct client_url url;  // its database: once it is known, also where the URL has none
    uint32_t timeout_ms;
    uint32_t sample_every;
    uint32_t clock_ns;
};

static uint32_t thread_count;
static _Thread_local uint32_t thread_number;

static struct stripe* stripe_of(const struct nearkey_cache* cache) {
    if (thread_number == 0) {
        thread_number = __atomic_add_fetch(&thread_count, 1, __ATOMIC_RELAXED);
    }
    return &cache->process->stripes[thread_number % STRIPES];
}

// No read-modify-write: one thread writes a stripe, unless there are more than stripes.
static void count(uint64_t* counter, uint64_t number) {
    const uint64_t before = __atomic_load_n(counter, __ATOMIC_RELAXED);
    __atomic_store_n(counter, before + number, __ATOMIC_RELAXED);
}

// xorshift64*. An interval that is drawn anew does not fall into step with what the program reads.
static uint64_t draw_interval(struct stripe* stripe, uint32_t sample_every) {
    uint64_t random = __atomic_load_n(&stripe->random, __ATOMIC_RELAXED);
    if (random == 0) random = handout_now_ns() | 1;
    random ^= random >> 12;
    random ^= random << 25;
    random ^= random >> 27;
    __atomic_store_n(&stripe->random, random, __ATOMIC_RELAXED);
    const uint64_t high = (random * UINT64_C(0x2545f4914f6cdd1d)) >> 32;
    // 1 to 2n - 1: n in the mean.
    return 1 + ((high * (2 * (uint64_t)sample_every - 1)) >> 32);
}

// Whether nearkey is to see the one that comes next.
static int is_sample(const struct nearkey_cache* cache, struct stripe* stripe, uint64_t hits) {
    if (cache->sample_every == UINT32_MAX) return 0;
    uint64_t left = __atomic_load_n(&stripe->hits_until_sample, __ATOMIC_RELAXED);
    if (left == 0) left = draw_interval(stripe, cache->sample_every);
    const int is_due = left <= hits;
    left = is_due ? draw_interval(stripe, cache->sample_every) : left - hits;
    __atomic_store_n(&stripe->hits_until_sample, left, __ATOMIC_RELAXED);
    return is_due;
}

static struct namespace_id find_time_namespace(void) {
    struct stat status;
    if (stat("/proc/self/ns/time", &status) == 0) {
        return (struct namespace_id){status.st_dev, status.st_ino};
    }
    // Before Linux 5.6 there is but one.
    const int is_the_only_one = errno == ENOENT && stat("/proc/self/ns/pid", &status) == 0;
    return (struct namespace_id){.inode = is_the_only_one ? 1 : 0};
}

static void set_off(struct nearkey_cache* cache, const char* why) {
    __atomic_store_n(&cache->why_off, why, __ATOMIC_RELAXED);
    __atomic_store_n(&cache->current, NULL, __ATOMIC_RELEASE);
}

// The first read in a child: unshare() may have given it a clock of its own.
static void know_process(struct nearkey_cache* cache) {
    const struct namespace_id now = find_time_namespace();
    if (now.inode == 0 || now.inode != cache->time_namespace.inode ||
        now.device != cache->time_namespace.device) {
        set_off(cache, "this process was forked into another time namespace");
    }
    __atomic_store_n(&cache->process->is_known, 1, __ATOMIC_RELEASE);
}

static const struct mapping* current_mapping(struct nearkey_cache* cache) {
    if (__atomic_load_n(&cache->process->is_known, __ATOMIC_ACQUIRE) == 0) know_process(cache);
    return __atomic_load_n(&cache->current, __ATOMIC_ACQUIRE);
}

#ifdef SYS_mmap2
#define MMAP_NUMBER SYS_mmap2
#else
#define MMAP_NUMBER SYS_mmap
#endif

// By its number: the thread sanitizer takes mmap() for a write, beside which nobody may read.
static void discard(const struct mapping* mapping) {
    syscall(MMAP_NUMBER, mapping->handout.base, mapping->handout.size, PROT_READ,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

// The program's connections stay in the database in which they began.
static const char* take_database(struct nearkey_cache* cache, struct mapping* mapping) {
    struct client_url* url = &cache->url;
    const uint16_t begins_in = mapping->handout.database;
    if (cache->mapping_count == 0 && !url->has_database) url->database = begins_in;
    mapping->database = url->database;
    if (url->has_database || url->database == begins_in) return NULL;
    munmap(mapping->handout.base, mapping->handout.size);
    return "the socket's clients begin in another database now; open another handle";
}

// Of the one thread that refreshes.
static void fetch(struct nearkey_cache* cache) {
    const struct mapping* previous = cache->current;
    if (previous != NULL) set_off(cache, "nearkey has ended, or has closed this segment");
    if (previous != NULL) discard(previous);
    if (cache->mapping_count == REPLACED_MAX) {
        set_off(cache, "nearkey was replaced too often for one handle; open another");
        return;
    }
    struct mapping* mapping = malloc(sizeof *mapping);
    if (mapping == NULL) {
        set_off(cache, "no memory");
        return;
    }
    const char* why = handout_fetch(cache->url.path, cache->timeout_ms, &mapping->handout);
    if (why == NULL) why = take_database(cache, mapping);
    if (why != NULL) {
        free(mapping);
        set_off(cache, why);
        return;
    }
    mapping->next = cache->mappings;
    cache->mappings = mapping;
    ++cache->mapping_count;
    cache->time_namespace = find_time_namespace();
    __atomic_store_n(&cache->current, mapping, __ATOMIC_RELEASE);
}

static uint64_t now_ms(void) {
    return handout_now_ns() / 1000000;
}

static int has_segment(struct nearkey_cache* cache) {
    const struct mapping* mapping = current_mapping(cache);
    return mapping != NULL && !segment_is_over(&mapping->handout.view);
}

int nearkey_refresh(nearkey_cache* cache) {
    if (has_segment(cache)) return 1;
    struct process* process = cache->process;
    if (__atomic_exchange_n(&process->is_refreshing, 1, __ATOMIC_ACQUIRE) != 0) return 0;
    const int is_due =
        process->refreshed_ms == 0 || now_ms() - process->refreshed_ms >= REFRESH_EVERY_MS;
    if (is_due && !has_segment(cache)) {
        fetch(cache);
        process->refreshed_ms = now_ms();
    }
    __atomic_store_n(&process->is_refreshing, 0, __ATOMIC_RELEASE);
    return has_segment(cache);
}

static uint32_t measure_clock(void) {
    const uint64_t begin = handout_now_ns();
    for (int i = 1; i < CLOCK_READINGS; ++i)
        (void)handout_now_ns();
    return (uint32_t)((handout_now_ns() - begin) / CLOCK_READINGS);
}

static uint32_t option_or(uint32_t option, uint32_t otherwise) {
    return option == 0 ? otherwise : option;
}

static void take_options(struct nearkey_cache* cache, const nearkey_options* given) {
    nearkey_options options = {0};
    if (given != NULL) {
        memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
    }
    cache->timeout_ms = option_or(options.timeout_ms, TIMEOUT_MS);
    cache->sample_every = option_or(options.sample_every, SAMPLE_EVERY);
}

static struct process* make_process(void) {
    void* memory = mmap(NULL, sizeof(struct process), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    if (madvise(memory, sizeof(struct process), MADV_WIPEONFORK) == 0) return memory;
    munmap(memory, sizeof(struct process));
    return NULL;
}

nearkey_cache* nearkey_open(const char* url, const nearkey_options* options) {
    struct nearkey_cache* cache = calloc(1, sizeof *cache);
    if (cache == NULL) return NULL;
    if (client_url_parse(url, &cache->url) != 0) {
        free(cache);
        errno = EINVAL;
        return NULL;
    }
    cache->process = make_process();
    if (cache->process == NULL) {
        free(cache);
        errno = ENOMEM;
        return NULL;
    }
    take_options(cache, options);
    segment_clock_init();
    cache->clock_ns = measure_clock();
    cache->process->is_known = 1;
    (void)nearkey_refresh(cache);
    return cache;
}

void nearkey_close(nearkey_cache* cache) {
    if (cache == NULL) return;
    for (struct mapping* mapping = cache->mappings; mapping != NULL;) {
        struct mapping* next = mapping->next;
        munmap(mapping->handout.base, mapping->handout.size);
        free(mapping);
        mapping = next;
    }
    munmap(cache->process, sizeof *cache->process);
    free(cache);
}

// What is told of a read that is no hit.
static int count_no_hit(struct stripe* stripe, enum segment_outcome outcome) {
    switch (outcome) {
        case SEGMENT_OFF:
            count(&stripe->off, 1);
            return NEARKEY_OFF;
        case SEGMENT_STALE:
            count(&stripe->stale, 1);
            return NEARKEY_STALE;
        default:
            count(&stripe->misses, 1);
            return NEARKEY_MISS;
    }
}

int64_t nearkey_get(nearkey_cache* cache, const void* key, size_t key_size, void* buffer,
                    size_t capacity) {
    struct stripe* stripe = stripe_of(cache);
    const struct mapping* mapping = current_mapping(cache);
    if (mapping == NULL) return count_no_hit(stripe, SEGMENT_OFF);
    const struct segment_key segment_key = {key, key_size, mapping->database};
    const struct segment_found found =
        segment_get(&mapping->handout.view, &segment_key, buffer, capacity);
    if (found.outcome != SEGMENT_HIT && found.outcome != SEGMENT_NIL) {
        return count_no_hit(stripe, found.outcome);
    }
    if (is_sample(cache, stripe, 1)) {
        count(&stripe->samples, 1);
        return NEARKEY_SAMPLE;
    }
    count(&stripe->hits, 1);
    return found.outcome == SEGMENT_NIL ? NEARKEY_NIL : (int64_t)found.size;
}

static int set_results(nearkey_slice* slices, size_t count, int result) {
    for (size_t i = 0; i < count; ++i)
        slices[i].result = result;
    return result;
}

int nearkey_mget(nearkey_cache* cache, nearkey_slice* slices, size_t size) {
    struct stripe* stripe = stripe_of(cache);
    const struct mapping* mapping = current_mapping(cache);
    enum segment_outcome outcome = mapping == NULL ? SEGMENT_OFF : SEGMENT_MISS;
    struct segment_slice own[NEARKEY_MGET_MAX];
    if (mapping != NULL && size > 0 && size <= NEARKEY_MGET_MAX) {
        for (size_t i = 0; i < size; ++i) {
            own[i].key = slices[i].key;
            own[i].key_size = slices[i].key_size;
            own[i].buffer = slices[i].buffer;
            own[i].capacity = slices[i].capacity;
        }
        outcome = segment_mget(&mapping->handout.view, mapping->database, own, size);
    }
    if (outcome != SEGMENT_HIT) return set_results(slices, size, count_no_hit(stripe, outcome));
    int is_too_large = 0;
    for (size_t i = 0; i < size; ++i) {
        const struct segment_found* found = &own[i].found;
        slices[i].result = found->outcome == SEGMENT_NIL ? NEARKEY_NIL : (int64_t)found->size;
        is_too_large |= found->size > slices[i].capacity;
    }
    if (is_too_large) return NEARKEY_TOO_LARGE;
    if (is_sample(cache, stripe, size)) {
        count(&stripe->samples, 1);
        return set_results(slices, size, NEARKEY_SAMPLE);
    }
    count(&stripe->hits, size);
    return 0;
}

static const char* why_off(const struct nearkey_cache* cache, const struct mapping* mapping) {
    if (mapping == NULL) return __atomic_load_n(&cache->why_off, __ATOMIC_RELAXED);
    if (segment_is_over(&mapping->handout.view)) {
        return "nearkey has ended, or has closed this segment";
    }
    if (segment_is_suspended(&mapping->handout.view)) {
        return "nearkey serves nothing from it just now (an upgrade, or MONITOR)";
    }
    return NULL;
}

void nearkey_info(const nearkey_cache* cache, nearkey_info_t* info) {
    const struct mapping* mapping = __atomic_load_n(&cache->current, __ATOMIC_ACQUIRE);
    nearkey_info_t full = {
        .size = info->size,
        .incarnation = mapping == NULL ? 0 : mapping->handout.view.incarnation,
        .clock_ns = cache->clock_ns,
        .why_off = why_off(cache, mapping),
    };
    for (size_t i = 0; i < STRIPES; ++i) {
        const struct stripe* stripe = &cache->process->stripes[i];
        full.hits += __atomic_load_n(&stripe->hits, __ATOMIC_RELAXED);
        full.misses += __atomic_load_n(&stripe->misses, __ATOMIC_RELAXED);
        full.stale += __atomic_load_n(&stripe->stale, __ATOMIC_RELAXED);
        full.off += __atomic_load_n(&stripe->off, __ATOMIC_RELAXED);
        full.samples += __atomic_load_n(&stripe->samples, __ATOMIC_RELAXED);
    }
    memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
}
