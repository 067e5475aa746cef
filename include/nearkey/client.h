// libnearkey-client: hits of nearkey's near cache, read from shared memory without a system call.
//
//     nearkey_cache* cache = nearkey_open("unix:///run/nearkey/nearkey.sock", NULL);
//     char value[NEARKEY_VALUE_MAX];
//     int64_t size = nearkey_get(cache, "user:7", 6, value, sizeof value);
//     if (size < 0 && size != NEARKEY_NIL) ...  // ask over the socket, with the client you have
//
// A hit keeps the promises of a reply over the socket (docs/shared_memory.md), if one rule is kept:
// **ask it only while nothing is owed on your client's connection.** A hit must not overtake your
// own commands. The library never sends a command of yours, and never writes: what is no hit goes
// over your own client.
//
// nearkey_get, nearkey_mget and nearkey_info may be called on one handle by any number of threads
// at once, take no lock and make no system call (but for one after a fork). nearkey_refresh may be
// called by any thread, and blocks. A handle may be used after fork(). Link with
// `pkg-config --libs nearkey-client`.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NEARKEY_API __attribute__((visibility("default")))
#else
#define NEARKEY_API
#endif

typedef struct nearkey_cache nearkey_cache;

enum {
    NEARKEY_VALUE_MAX = 4096,  // bytes of the largest value that is ever a hit
    NEARKEY_KEY_MAX = 1024,    // and of its key
    NEARKEY_MGET_MAX = 256,    // keys of one nearkey_mget that is ever a hit
};

// Why it is no hit. All but NEARKEY_NIL: ask over the socket.
enum {
    NEARKEY_NIL = -1,        // a hit: there is no such key
    NEARKEY_MISS = -2,       // not in the segment, or just being changed
    NEARKEY_STALE = -3,      // Valkey has proven nothing for near_cache.max_staleness_ms
    NEARKEY_OFF = -4,        // nothing is served: no segment, nearkey is gone or being upgraded
    NEARKEY_SAMPLE = -5,     // one in `sample_every` hits: nearkey is to see it
    NEARKEY_TOO_LARGE = -6,  // of nearkey_mget: a value did not fit; its slice tells the size
};

typedef struct nearkey_options {
    size_t size;            // sizeof(nearkey_options): tells which of the following are there
    uint32_t timeout_ms;    // of nearkey_open and nearkey_refresh; 0: 1000
    uint32_t sample_every;  // 0: 1024; UINT32_MAX: never
} nearkey_options;

// Opens a socket's segment: unix:///PATH, unix:///PATH?db=2, or just /PATH. `options` may be null.
// Without db the keys are those of the database in which the socket's clients begin.
// Connects, asks for the segment and closes the connection again. Where there is none (an older
// nearkey, shared_memory = false, no permission, another host's clock), the handle is there and
// every read is NEARKEY_OFF; nearkey_info says why. Null, with errno: EINVAL, a URL that this is
// not; ENOMEM.
NEARKEY_API nearkey_cache* nearkey_open(const char* url, const nearkey_options* options);

// Asks anew for a segment if the handle has none (after NEARKEY_OFF): at most once a second, else
// it returns at once. May block for timeout_ms. 1: there is one now. Any thread may call it; one at
// a time does the work, the others return at once.
NEARKEY_API int nearkey_refresh(nearkey_cache* cache);

// No other call on the handle may be under way. Null is fine.
NEARKEY_API void nearkey_close(nearkey_cache* cache);

// The value's size, with the value in `buffer`; or one of the above. A size above `capacity`:
// nothing was copied. If it is no hit, what `buffer` holds is undefined.
NEARKEY_API int64_t nearkey_get(nearkey_cache* cache, const void* key, size_t key_size,
                                void* buffer, size_t capacity);

typedef struct nearkey_slice {
    const void* key;
    size_t key_size;
    void* buffer;
    size_t capacity;
    int64_t result;  // as nearkey_get's
} nearkey_slice;

// Reads `count` keys as MGET does: as they were at one moment. 0: each slice has its size or
// NEARKEY_NIL. Else no slice is a hit, and this is the reason, of one of them.
NEARKEY_API int nearkey_mget(nearkey_cache* cache, nearkey_slice* slices, size_t count);

typedef struct nearkey_info_t {
    size_t size;    // set by the caller: sizeof(nearkey_info_t)
    uint64_t hits;  // of this process, NEARKEY_NIL and each key of nearkey_mget among them
    uint64_t misses;
    uint64_t stale;
    uint64_t off;
    uint64_t samples;
    uint64_t incarnation;  // which segment; 0: none
    uint32_t clock_ns;     // what a reading of the clock takes here; a system call takes over 100
    const char* why_off;   // a sentence; null: it is on. Constant memory
} nearkey_info_t;

// Counters of all threads, which may be a little behind.
NEARKEY_API void nearkey_info(const nearkey_cache* cache, nearkey_info_t* info);

#ifdef __cplusplus
}
#endif
