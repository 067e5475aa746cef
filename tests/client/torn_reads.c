// Readers and a writer of one segment, with pauses of random length between any two of their steps
// (without them a wrong order shows hardly ever): nearkey_torn_reads [--hits N] [--seconds N]
// [--broken RULE] [--list]. Each hit is judged: is it whole (torn), no older than what was answered
// before it began (unread), than what its reader saw before (backward), than the bound allows
// (stale), of one moment (mixed), not ahead of its reader's own commands (overtaken)? Time is the
// writer's. With --broken one rule of the reader's order or the writer's is broken, and it ends
// well as soon as that was found.
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "broken_orders.h"
#include "nearkey/cache/segment.h"
#include "segment_reader.h"
#include "segment_writer.h"

static const char* const kNames[RULES] = {
    "none",  "validation",  "tombstone",   "lease-last",  "clock-first", "one-moment",   "version",
    "reuse", "reply-first", "renew-first", "source-open", "not-off",     "owed-ignored",
};

enum rule broken;

enum { READERS = 2, KEYS = 12, PAIRS = 2, ALL_KEYS = KEYS + PAIRS, BUCKETS = 4 };
enum { BOUND_MS = 8, RING = 1 << 16, WORDS_MAX = 17, KEY_BYTES = 8 };

// What is true, and what is known of it.
struct truth {
    _Alignas(64) _Atomic uint64_t number;  // the server's value
    _Atomic uint64_t answered;             // the newest that somebody was shown
    _Atomic uint64_t changed_ms[RING];     // when the value of this number came
};

static struct truth truths[ALL_KEYS];
static _Atomic uint64_t time_ms = 1000;
static _Atomic int is_over;
static _Atomic uint64_t hit_count;
static _Atomic uint64_t write_count;
static _Atomic uint64_t wishes[READERS];  // a reader's own write: its key + 1; 0: answered
static struct segment_writer mirror;
static struct segment_view view;
static _Atomic uint64_t torn, unread, backward, stale, mixed, overtaken;

static _Thread_local uint64_t random_state;
static _Thread_local uint64_t seen_ms;  // the clock's last reading, of this reader

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

// Mostly none; now and then longer than all that others do meanwhile.
void pause_a_little(void) {
    // Then the last look at memory is the moment that counts, not the clock's.
    if (broken == CLOCK_FIRST) seen_ms = atomic_load(&time_ms);
    const uint64_t random = next_random() >> 20;
    if (random % 32 != 0) return;
    const uint64_t length = random / 32 % 1024;
    if (length == 0) sched_yield();
    const uint64_t turns = length < 16 ? 2000 : length % 64;
    for (volatile uint64_t i = 0; i < turns; ++i) {
    }
}

uint64_t time_now(void) {
    const uint64_t now = atomic_load(&time_ms);
    seen_ms = now;
    // So that time passes between this and what is read after it.
    for (int i = 0; broken == CLOCK_FIRST && i < 64; ++i)
        pause_a_little();
    return now;
}

static uint64_t word_of(uint64_t key, uint64_t number, uint64_t place) {
    return (number << 8 | key) * UINT64_C(0x9e3779b97f4a7c15) +
           place * UINT64_C(0xff51afd7ed558ccd);
}

static uint64_t words_of(uint64_t key, uint64_t number) {
    return 2 + (number * 7 + key) % (WORDS_MAX - 2);
}

static void name_key(uint64_t key, char* name) {
    memcpy(name, "key:0000", KEY_BYTES);
    name[6] = (char)('0' + key / 10);
    name[7] = (char)('0' + key % 10);
}

// --- The writer: a daemon, its Valkey and its clients, one step after the other.

static void put(uint64_t key, uint64_t number) {
    char name[KEY_BYTES];
    uint64_t value[WORDS_MAX];
    name_key(key, name);
    const uint64_t words = words_of(key, number);
    value[0] = number;
    for (uint64_t i = 1; i < words; ++i)
        value[i] = word_of(key, number, i);
    const struct segment_reply reply = {.key = name,
                                        .key_size = KEY_BYTES,
                                        .value = value,
                                        .value_size = words * 8,
                                        .deadline_ms = UINT64_MAX};
    if (segment_writer_put(&mirror, &reply) != 0) segment_writer_clear(&mirror);
}

static void make_void(uint64_t key) {
    char name[KEY_BYTES];
    name_key(key, name);
    segment_writer_remove(&mirror, name, KEY_BYTES, 0);
}

static void tick(uint64_t ms) {
    atomic_fetch_add(&time_ms, ms);
    pause_a_little();
}

static uint64_t change(uint64_t key) {
    struct truth* truth = &truths[key];
    const uint64_t number = atomic_load(&truth->number) + 1;
    atomic_store(&truth->changed_ms[number % RING], atomic_load(&time_ms));
    atomic_store(&truth->number, number);
    pause_a_little();
    return number;
}

static void answer(uint64_t key, uint64_t number) {
    atomic_store_explicit(&truths[key].answered, number, memory_order_release);
    pause_a_little();
}

static void prove(uint64_t asked_ms) {
    segment_writer_set_source(&mirror, 0, asked_ms);
}

// Void, sent to the server, answered, read again.
static void write_own(uint64_t key) {
    if (broken == REUSE) {  // What is there is overwritten instead.
        put(key, change(key));
        answer(key, atomic_load(&truths[key].number));
        return;
    }
    if (broken != REPLY_FIRST) make_void(key);
    const uint64_t number = change(key);
    answer(key, number);
    if (broken == REPLY_FIRST) make_void(key);
    if (next_random() % 8 != 0) put(key, number);
}

// In a transaction: both at one moment.
static void write_pair(void) {
    make_void(KEYS);
    make_void(KEYS + 1);
    const uint64_t first = change(KEYS);
    const uint64_t second = change(KEYS + 1);
    answer(KEYS, first);
    answer(KEYS + 1, second);
    put(KEYS, first);
    put(KEYS + 1, second);
}

static void write_elsewhere(uint64_t key) {
    const uint64_t number = change(key);
    tick(next_random() % 4);
    const uint64_t asked_ms = atomic_load(&time_ms);
    if (broken == RENEW_FIRST) {
        prove(asked_ms);
        tick(BOUND_MS - 1);
    }
    make_void(key);
    prove(asked_ms);
    put(key, number);
}

// Its news never comes: what remains is the lease.
static void lose_news(uint64_t key) {
    prove(atomic_load(&time_ms));
    const uint64_t number = change(key);
    for (uint64_t passed = 0, step; passed < 2 * BOUND_MS; passed += step) {
        step = 1 + next_random() % BOUND_MS;
        tick(step);
    }
    make_void(key);
    prove(atomic_load(&time_ms));
    put(key, number);
}

// The connection is lost; over another one somebody is shown what has changed.
static void lose_source(uint64_t key) {
    if (broken != SOURCE_OPEN) prove(0);
    const uint64_t number = change(key);
    answer(key, number);
    tick(1);
    make_void(key);
    prove(atomic_load(&time_ms));
    put(key, number);
}

// Killed, and its successor serves at once.
static void die(uint64_t key) {
    segment_writer_set_owner(&mirror, NEARKEY_SEGMENT_OWNER_DIED);
    const uint64_t number = change(key);
    answer(key, number);
    tick(1);
    make_void(key);
    segment_writer_set_owner(&mirror, 1);
}

static void suspend(uint64_t key) {
    if (broken != NOT_OFF) segment_writer_set_on(&mirror, 0);
    const uint64_t number = change(key);
    answer(key, number);
    tick(1);
    segment_writer_set_on(&mirror, 1);
    segment_writer_clear(&mirror);
    for (uint64_t each = 0; each < ALL_KEYS; ++each)
        put(each, atomic_load(&truths[each].number));
}

static void act(void) {
    const uint64_t random = next_random() >> 16;
    const uint64_t key = random / 1024 % KEYS;
    switch (random % 64) {
        case 0:
            die(key);
            break;
        case 1:
            suspend(key);
            break;
        case 2:
            lose_source(key);
            break;
        case 3:
        case 4:
        case 5:
        case 6:
            lose_news(key);
            break;
        case 7:
        case 8:
        case 9:
            write_elsewhere(key);
            break;
        case 10:
        case 11:
        case 12:
        case 13:
        case 14:
        case 15:
            write_pair();
            break;
        case 16:
            tick(1);
            prove(atomic_load(&time_ms));
            break;
        default:
            write_own(key);
    }
}

static void* run_writer(void* unused) {
    (void)unused;
    random_state = 77;
    while (!atomic_load(&is_over)) {
        for (int i = 0; i < READERS; ++i) {
            const uint64_t wish = atomic_load(&wishes[i]);
            if (wish == 0) continue;
            write_own(wish - 1);
            atomic_store(&wishes[i], 0);
        }
        act();
        // The readers are to have their time, with what is there.
        for (uint64_t i = next_random() % 64; i > 0; --i)
            pause_a_little();
        atomic_fetch_add_explicit(&write_count, 1, memory_order_relaxed);
    }
    return NULL;
}

// --- Readers.

struct reader {
    int number;
    uint64_t seen[ALL_KEYS];
};

// Whether the value is whole, and its number.
static int is_whole(uint64_t key, const uint64_t* value, size_t size) {
    if (size < 16 || size != words_of(key, value[0]) * 8) return 0;
    for (uint64_t i = 1; i < size / 8; ++i) {
        if (value[i] != word_of(key, value[0], i)) return 0;
    }
    return 1;
}

static void judge(struct reader* reader, uint64_t key, uint64_t number, uint64_t answered) {
    struct truth* truth = &truths[key];
    if (number < answered) atomic_fetch_add(&unread, 1);
    if (number < reader->seen[key]) atomic_fetch_add(&backward, 1);
    reader->seen[key] = number;
    const uint64_t now = atomic_load(&truth->number);
    if (now > number && now - number < RING / 2) {
        const uint64_t changed_ms = atomic_load(&truth->changed_ms[(number + 1) % RING]);
        if (seen_ms >= changed_ms + BOUND_MS) atomic_fetch_add(&stale, 1);
    }
    atomic_fetch_add_explicit(&hit_count, 1, memory_order_relaxed);
}

// The number of a hit; 0: none.
static uint64_t read_key(struct reader* reader, uint64_t key) {
    char name[KEY_BYTES];
    uint64_t value[WORDS_MAX];
    name_key(key, name);
    const uint64_t answered = atomic_load_explicit(&truths[key].answered, memory_order_acquire);
    const struct segment_key segment_key = {name, KEY_BYTES, 0};
    const struct segment_found found = segment_get(&view, &segment_key, value, sizeof value);
    if (found.outcome != SEGMENT_HIT) return 0;
    if (!is_whole(key, value, found.size)) {
        atomic_fetch_add(&torn, 1);
        return 0;
    }
    judge(reader, key, value[0], answered);
    return value[0];
}

static void read_pair(struct reader* reader) {
    char names[PAIRS][KEY_BYTES];
    uint64_t values[PAIRS][WORDS_MAX];
    uint64_t answered[PAIRS];
    struct segment_slice slices[PAIRS];
    for (uint64_t i = 0; i < PAIRS; ++i) {
        name_key(KEYS + i, names[i]);
        answered[i] = atomic_load_explicit(&truths[KEYS + i].answered, memory_order_acquire);
        slices[i] = (struct segment_slice){.key = names[i],
                                           .key_size = KEY_BYTES,
                                           .buffer = values[i],
                                           .capacity = sizeof values[i]};
    }
    if (segment_mget(&view, 0, slices, PAIRS) != SEGMENT_HIT) return;
    for (uint64_t i = 0; i < PAIRS; ++i) {
        if (!is_whole(KEYS + i, values[i], slices[i].found.size)) {
            atomic_fetch_add(&torn, 1);
            return;
        }
        judge(reader, KEYS + i, values[i][0], answered[i]);
    }
    if (values[0][0] != values[1][0]) atomic_fetch_add(&mixed, 1);
}

// A write of its own, and a read: behind the reply, or the hit overtakes the write.
static void write_and_read(struct reader* reader, uint64_t key) {
    const uint64_t before = atomic_load(&truths[key].number);
    atomic_store(&wishes[reader->number], key + 1);
    const uint64_t early = broken == OWED_IGNORED ? read_key(reader, key) : 0;
    while (atomic_load(&wishes[reader->number]) != 0 && !atomic_load(&is_over))
        sched_yield();
    if (atomic_load(&is_over)) return;
    const uint64_t number = broken == OWED_IGNORED ? early : read_key(reader, key);
    // Its own write came after `before`.
    if (number != 0 && number <= before) atomic_fetch_add(&overtaken, 1);
}

static void* run_reader(void* argument) {
    struct reader* reader = argument;
    random_state = 1001 + (uint64_t)reader->number;
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        const uint64_t random = next_random() >> 16;
        if (random % 8 == 0) {
            read_pair(reader);
        } else if (random % 512 == 1) {
            write_and_read(reader, random / 512 % KEYS);
        } else {
            read_key(reader, random / 512 % KEYS);
        }
    }
    return NULL;
}

// --- The program.

struct settings {
    uint64_t hits;
    double seconds;
};

static int parse(int argc, char** argv, struct settings* settings) {
    for (int i = 1; i < argc; i += 2) {
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--hits") == 0) {
            settings->hits = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--seconds") == 0) {
            settings->seconds = strtod(value, NULL);
        } else if (strcmp(argv[i], "--broken") == 0) {
            for (broken = NONE; broken < RULES && strcmp(kNames[broken], value) != 0; ++broken) {
            }
            if (broken == RULES) return -1;
        } else {
            return -1;
        }
    }
    return 0;
}

static uint64_t violations(void) {
    return atomic_load(&torn) + atomic_load(&unread) + atomic_load(&backward) +
           atomic_load(&stale) + atomic_load(&mixed) + atomic_load(&overtaken);
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run(const struct settings* settings) {
    const uint64_t size = segment_writer_size(BUCKETS, 1 << 16);
    void* memory = aligned_alloc(NEARKEY_SEGMENT_PAGE, size);
    memset(memory, 0, size);
    segment_writer_init(&mirror, memory, size, BUCKETS);
    segment_writer_set_staleness(&mirror, BOUND_MS);
    prove(1000);
    if (segment_view_init(&view, memory, size) != 0) abort();
    pthread_t threads[READERS + 1];
    static struct reader readers[READERS];
    random_state = 1;
    pthread_create(&threads[READERS], NULL, run_writer, NULL);
    for (int i = 0; i < READERS; ++i) {
        readers[i].number = i;
        pthread_create(&threads[i], NULL, run_reader, &readers[i]);
    }
    const double end = seconds_now() + settings->seconds;
    while (atomic_load(&hit_count) < settings->hits && seconds_now() < end && violations() == 0) {
        const struct timespec rest = {0, 5000000};
        nanosleep(&rest, NULL);
    }
    atomic_store(&is_over, 1);
    for (int i = 0; i <= READERS; ++i)
        pthread_join(threads[i], NULL);
    free(memory);
}

int main(int argc, char** argv) {
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (int rule = NONE + 1; rule < RULES; ++rule)
            printf("%s\n", kNames[rule]);
        return 0;
    }
    struct settings settings = {UINT64_MAX, 10};
    if (parse(argc, argv, &settings) != 0) {
        fprintf(stderr, "usage: nearkey_torn_reads [--hits N] [--seconds N] [--broken RULE]\n");
        return 2;
    }
    const double begin = seconds_now();
    run(&settings);
    const int is_found = violations() != 0;
    const int is_well = is_found == (broken != NONE);
    printf("torn reads/%s%s: %" PRIu64 " hits beside %" PRIu64 " changes in %.1f s: %" PRIu64
           " torn, %" PRIu64 " unread, %" PRIu64 " backward, %" PRIu64 " stale, %" PRIu64
           " mixed, %" PRIu64 " overtaken: %s\n",
           broken == NONE ? "right order" : "without ", broken == NONE ? "" : kNames[broken],
           hit_count, write_count, seconds_now() - begin, torn, unread, backward, stale, mixed,
           overtaken, is_well ? "ok" : "FAIL");
    return is_well ? 0 : 1;
}
