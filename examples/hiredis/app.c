// Writes a key, and reads it a million times: app SOCKET
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "nearkey_hiredis.h"

enum { READS = 1000000 };

int main(int argc, char** argv) {
    const char* path = argc > 1 ? argv[1] : "/run/nearkey/nearkey.sock";
    redisContext* redis = redisConnectUnix(path);
    struct nearkey_hiredis both;
    if (redis == NULL || redis->err != 0 || nearkey_hiredis_open(&both, redis, path) != 0) {
        fprintf(stderr, "no connection to %s\n", path);
        return 1;
    }
    freeReplyObject(redisCommand(redis, "SET greeting hello"));
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < READS; ++i) {
        redisReply* reply = nearkey_hiredis_get(&both, "greeting", 8);
        if (reply == NULL || reply->type != REDIS_REPLY_STRING ||
            strcmp(reply->str, "hello") != 0) {
            fprintf(stderr, "not what was written\n");
            return 1;
        }
        freeReplyObject(reply);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    nearkey_info_t info = {.size = sizeof info};
    nearkey_info(both.cache, &info);
    const double ns =
        (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
    printf("%d reads, %.0f ns each; %" PRIu64 " from shared memory%s%s\n", READS, ns / READS,
           info.hits, info.why_off == NULL ? "" : ", because ",
           info.why_off == NULL ? "" : info.why_off);
    nearkey_hiredis_close(&both);
    redisFree(redis);
    return 0;
}
