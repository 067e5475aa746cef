// What nearkey_torn_reads makes of the reader and the writer of a segment: it is included before
// each of its sources (-include). Between any two of their steps stands a pause; each of the rules
// below can be broken; the clock is the test's.
#pragma once

#include <stdint.h>

enum rule {
    NONE,
    VALIDATION,    // reader: the version is read again
    TOMBSTONE,     // reader: a daemon that is gone serves nothing
    LEASE_LAST,    // reader: the proof is read before the validation; broken: behind it
    CLOCK_FIRST,   // reader: the clock is read last; broken: first
    ONE_MOMENT,    // reader: the parts of MGET are validated once more
    VERSION,       // writer: a change of a bucket changes its version
    REUSE,         // writer: memory is used again once the entry is out
    REPLY_FIRST,   // writer: a write makes its key void before it is answered
    RENEW_FIRST,   // writer: the proof is renewed behind the news
    SOURCE_OPEN,   // writer: a source that is lost proves nothing
    NOT_OFF,       // writer: what is suspended is off
    OWED_IGNORED,  // client: it asks only while nothing is owed
    RULES
};

extern enum rule broken;
void pause_a_little(void);
uint64_t time_now(void);

#define SEGMENT_PAUSE pause_a_little
#define SEGMENT_BREAKS(rule) (broken == (rule))
#define SEGMENT_NOW_MS time_now
