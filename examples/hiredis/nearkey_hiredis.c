#include "nearkey_hiredis.h"

#include <stdio.h>

enum { SAMPLE_EVERY = 1024 };

int nearkey_hiredis_open(struct nearkey_hiredis* both, redisContext* redis, const char* path) {
    const nearkey_options options = {sizeof options, 0, SAMPLE_EVERY};
    both->redis = redis;
    both->cache = nearkey_open(path, &options);
    both->reader = redisReaderCreate();
    return both->reader == NULL ? -1 : 0;
}

void nearkey_hiredis_close(struct nearkey_hiredis* both) {
    nearkey_close(both->cache);
    redisReaderFree(both->reader);
}

// The reply that the socket would have brought.
static redisReply* reply_of(redisReader* reader, const char* value, int64_t size) {
    char head[32];
    const int head_size = snprintf(head, sizeof head, "$%lld\r\n", (long long)size);
    void* reply = NULL;
    redisReaderFeed(reader, head, (size_t)head_size);
    if (size >= 0) {
        redisReaderFeed(reader, value, (size_t)size);
        redisReaderFeed(reader, "\r\n", 2);
    }
    return redisReaderGetReply(reader, &reply) == REDIS_OK ? reply : NULL;
}

// In front of a read that nearkey is to see: it stands for as many.
static void tell_hits(redisContext* redis) {
    redisAppendCommand(redis, "NEARKEY HITS %d", SAMPLE_EVERY);
}

redisReply* nearkey_hiredis_get(struct nearkey_hiredis* both, const char* key, size_t size) {
    char value[NEARKEY_VALUE_MAX];
    int64_t found = NEARKEY_MISS;
    if (both->cache != NULL) found = nearkey_get(both->cache, key, size, value, sizeof value);
    if (found >= 0) return reply_of(both->reader, value, found);
    if (found == NEARKEY_NIL) return reply_of(both->reader, NULL, -1);
    if (found == NEARKEY_OFF) nearkey_refresh(both->cache);
    if (found != NEARKEY_SAMPLE) return redisCommand(both->redis, "GET %b", key, size);
    void* reply = NULL;
    tell_hits(both->redis);
    redisAppendCommand(both->redis, "GET %b", key, size);
    if (redisGetReply(both->redis, &reply) != REDIS_OK) return NULL;
    freeReplyObject(reply);
    return redisGetReply(both->redis, &reply) == REDIS_OK ? reply : NULL;
}
