// GETs of a blocking hiredis context, answered from nearkey's shared memory where they can be.
// A copy of these two files is all that a program needs, besides libnearkey-client.
//
// The rule: while a reply is owed to this context (redisAppendCommand without its redisGetReply),
// and behind AUTH, SELECT, HELLO, MULTI or SUBSCRIBE on it, use redisCommand, not this.
#pragma once

#include <hiredis/hiredis.h>
#include <nearkey/client.h>

struct nearkey_hiredis {
    redisContext* redis;   // the caller's
    nearkey_cache* cache;  // null: everything goes over the socket
    redisReader* reader;   // makes replies of what was found
};

// Opens the cache behind the socket that `redis` is connected to. Returns 0, or -1: no memory.
int nearkey_hiredis_open(struct nearkey_hiredis* both, redisContext* redis, const char* path);
// As redisCommand(redis, "GET %b", key, size); the reply is freed with freeReplyObject.
redisReply* nearkey_hiredis_get(struct nearkey_hiredis* both, const char* key, size_t size);
// Leaves `redis` to the caller.
void nearkey_hiredis_close(struct nearkey_hiredis* both);
