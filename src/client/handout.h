// Asks a nearkey for its segment, and maps it: connect, NEARKEY SHM, checks, mmap.
// What a nearkey (or whatever listens there) hands out is not trusted: it must be of a size that
// nobody can change, of this library's layout, and of the same clock.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "segment_reader.h"

struct handout {
    void* base;
    size_t size;
    struct segment_view view;
    uint16_t database;  // in which the socket's clients begin
};

// Returns null, with the segment in `handout`; or why there is none: a sentence, constant memory.
const char* handout_fetch(const char* path, uint32_t timeout_ms, struct handout* handout);

// Of CLOCK_BOOTTIME, which nearkey has too.
uint64_t handout_now_ns(void);
