// A stand-in for nearkey while the library and its bindings are developed and tested: a proxy on a
// Unix socket before a Valkey, which hands out a segment and keeps it coherent with what passes
// through itself. Writes that come to Valkey another way it does not see.
//
//     segment_server SOCKET UPSTREAM_SOCKET [MAX_STALENESS_MS]
//
// A thread for each client, one command at a time, with a connection to Valkey of its own. GET and
// MGET are stored when they are answered; a write makes its key void before it is sent, everything
// that is not known makes all void. It prints "ready" and ends at SIGTERM, or when it is killed.
#define _GNU_SOURCE  // memfd_create, accept4, strcasestr
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "nearkey/cache/segment.h"
#include "segment_writer.h"

enum { BUCKETS = 1 << 14, ITEM_BYTES = 16 << 20, PROOF_EVERY_MS = 20, ARGS_MAX = 1024 };

// Bytes that were read and not yet used.
struct stream {
    int descriptor;
    char* bytes;
    size_t size;
    size_t used;
    size_t capacity;
};

struct text {
    const char* bytes;
    size_t size;
};

struct client {
    struct stream near;  // of the client
    struct stream far;   // of Valkey
    uint16_t database;
    struct text args[ARGS_MAX];
    size_t arg_count;
    size_t command_size;  // in near
};

static struct segment_writer writer;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;  // of writer and what follows
static uint64_t changes;  // writes begun and ended: what was asked for before one is not stored
static int segment_descriptor;
static const char* upstream_path;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void fail(const char* what) {
    fprintf(stderr, "segment_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

// --- Streams.

// 0: the peer has gone.
static int read_more(struct stream* stream) {
    if (stream->used > 0) {
        memmove(stream->bytes, stream->bytes + stream->used, stream->size - stream->used);
        stream->size -= stream->used;
        stream->used = 0;
    }
    if (stream->size == stream->capacity) {
        stream->capacity = stream->capacity == 0 ? 16384 : stream->capacity * 2;
        stream->bytes = realloc(stream->bytes, stream->capacity);
        if (stream->bytes == NULL) fail("realloc");
    }
    const ssize_t got =
        read(stream->descriptor, stream->bytes + stream->size, stream->capacity - stream->size);
    if (got <= 0) return 0;
    stream->size += (size_t)got;
    return 1;
}

static int send_all(int descriptor, const char* bytes, size_t size) {
    while (size > 0) {
        const ssize_t sent = send(descriptor, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        bytes += sent;
        size -= (size_t)sent;
    }
    return 1;
}

// The line at `at` of what is not yet used, without its end; 0: it is not there yet.
static size_t line_end(const struct stream* stream, size_t at) {
    const char* begin = stream->bytes + stream->used;
    const char* end = at < stream->size - stream->used
                          ? memchr(begin + at, '\n', stream->size - stream->used - at)
                          : NULL;
    return end == NULL ? 0 : (size_t)(end - begin) + 1;
}

// Bytes of the value at `at`, 0: not all of it is there yet.
static size_t value_end(const struct stream* stream, size_t at) {
    size_t end = line_end(stream, at);
    if (end == 0) return 0;
    const char* head = stream->bytes + stream->used + at;
    long count = strchr("$=!*~>%|", *head) == NULL ? 0 : strtol(head + 1, NULL, 10);
    if (strchr("$=!", *head) != NULL) {
        if (count < 0) return end;
        end += (size_t)count + 2;
        return end <= stream->size - stream->used ? end : 0;
    }
    if (*head == '%' || *head == '|') count *= 2;
    if (*head == '|') ++count;  // attributes, and what they are of
    for (; count > 0 && end != 0; --count)
        end = value_end(stream, end);
    return end;
}

// --- Commands.

// Parses the first command that is there; 0: more is needed.
static int parse_command(struct client* client) {
    struct stream* near = &client->near;
    client->arg_count = 0;
    if (near->size == near->used) return 0;
    const char* begin = near->bytes + near->used;
    size_t at = line_end(near, 0);
    if (at == 0) return 0;
    if (*begin != '*') {  // An inline command, of one word.
        client->args[client->arg_count++] = (struct text){begin, strcspn(begin, "\r\n ")};
        client->command_size = at;
        return 1;
    }
    const size_t end = value_end(near, 0);
    if (end == 0) return 0;
    client->command_size = end;
    while (at < end && client->arg_count < ARGS_MAX) {
        const size_t size = strtoul(begin + at + 1, NULL, 10);
        at = line_end(near, at);
        client->args[client->arg_count++] = (struct text){begin + at, size};
        at += size + 2;
    }
    return client->arg_count > 0;
}

static int is_word(struct text text, const char* word) {
    return text.size == strlen(word) && strncasecmp(text.bytes, word, text.size) == 0;
}

static int is_one_of(struct text name, const char* names) {
    char padded[34] = " ";
    if (name.size > 30) return 0;
    memcpy(padded + 1, name.bytes, name.size);
    memcpy(padded + 1 + name.size, " ", 2);
    return strcasestr(names, padded) != NULL;
}

// --- The segment.

// A reply that says what a key has now.
struct found {
    struct text key;
    struct text value;
    int is_nil;
    uint8_t flags;
};

static void store(const struct client* client, const struct found* found, uint64_t deadline_ms) {
    if (found->key.size > NEARKEY_SEGMENT_KEY_MAX || found->value.size > NEARKEY_SEGMENT_VALUE_MAX)
        return;
    const struct segment_reply reply = {
        .key = found->key.bytes,
        .key_size = found->key.size,
        .value = found->value.bytes,
        .value_size = found->value.size,
        .deadline_ms = deadline_ms,
        .database = client->database,
        .flags = (uint8_t)(found->flags | (found->is_nil ? NEARKEY_SEGMENT_NIL : 0))};
    if (segment_writer_put(&writer, &reply) != 0) segment_writer_clear(&writer);
}

static void begin_write(const struct client* client) {
    const struct text name = client->args[0];
    pthread_mutex_lock(&lock);
    ++changes;
    if (client->arg_count > 1 &&
        is_one_of(name,
                  " SET SETEX PSETEX SETNX GETSET GETDEL APPEND INCR DECR INCRBY DECRBY "
                  "EXPIRE PEXPIRE PERSIST GETEX SETRANGE HSET LPUSH RPUSH SADD ZADD ")) {
        const struct text key = client->args[1];
        segment_writer_remove(&writer, key.bytes, key.size, client->database);
    } else if (is_one_of(name, " DEL UNLINK ")) {
        for (size_t i = 1; i < client->arg_count; ++i) {
            segment_writer_remove(&writer, client->args[i].bytes, client->args[i].size,
                                  client->database);
        }
    } else {
        segment_writer_clear(&writer);
    }
    pthread_mutex_unlock(&lock);
}

static void end_write(void) {
    pthread_mutex_lock(&lock);
    ++changes;
    pthread_mutex_unlock(&lock);
}

static uint64_t count_changes(void) {
    pthread_mutex_lock(&lock);
    const uint64_t now = changes;
    pthread_mutex_unlock(&lock);
    return now;
}

// --- One command at a time.

// Reads Valkey's reply, and passes on what is pushed before it. 0: Valkey has gone.
static size_t read_reply(struct client* client) {
    for (;;) {
        const size_t size = client->far.size > client->far.used ? value_end(&client->far, 0) : 0;
        const char* bytes = client->far.bytes + client->far.used;
        if (size == 0) {
            if (!read_more(&client->far)) return 0;
        } else if (*bytes == '>') {
            if (!send_all(client->near.descriptor, bytes, size)) return 0;
            client->far.used += size;
        } else {
            return size;
        }
    }
}

// UINT64_MAX: it does not expire; 0: it may be gone already.
static uint64_t ask_deadline(struct client* client, struct text key) {
    char head[64];
    const uint64_t asked_ms = now_ns() / 1000000;
    const int size = snprintf(head, sizeof head, "*2\r\n$4\r\nPTTL\r\n$%zu\r\n", key.size);
    if (!send_all(client->far.descriptor, head, (size_t)size) ||
        !send_all(client->far.descriptor, key.bytes, key.size) ||
        !send_all(client->far.descriptor, "\r\n", 2)) {
        return 0;
    }
    const size_t reply = read_reply(client);
    if (reply == 0) return 0;
    const long left = strtol(client->far.bytes + client->far.used + 1, NULL, 10);
    client->far.used += reply;
    if (left == -1) return UINT64_MAX;
    return left < 0 ? 0 : asked_ms + (uint64_t)left;
}

static struct found found_in(struct text key, const char* reply) {
    if (*reply == '_' || (*reply == '$' && reply[1] == '-'))
        return (struct found){key, {"", 0}, 1, 0};
    const char* value = (const char*)memchr(reply, '\n', 32) + 1;
    return (struct found){key, {value, strtoul(reply + 1, NULL, 10)}, 0, 0};
}

// Stores what GET or MGET has brought, from a copy of the reply.
static void store_replies(struct client* client, const char* reply, size_t size, uint64_t before) {
    const int is_get = is_word(client->args[0], "GET");
    if (is_get ? *reply != '$' && *reply != '_' : *reply != '*') return;  // e.g. +QUEUED
    struct stream parts = {.bytes = (char*)(uintptr_t)reply, .size = size};
    size_t at = is_get ? 0 : line_end(&parts, 0);
    for (size_t i = 1; i < client->arg_count && at < size; ++i) {
        struct found found = found_in(client->args[i], reply + at);
        if (found.is_nil && !is_get) found.flags = NEARKEY_SEGMENT_NOT_GET;
        const uint64_t deadline_ms =
            found.is_nil ? UINT64_MAX : ask_deadline(client, client->args[i]);
        pthread_mutex_lock(&lock);
        if (changes == before && deadline_ms != 0) store(client, &found, deadline_ms);
        pthread_mutex_unlock(&lock);
        at = value_end(&parts, at);
    }
}

// Sends the command to Valkey and its reply to the client.
static int forward(struct client* client) {
    const struct text name = client->args[0];
    const int is_read = is_one_of(name, " GET MGET ");
    const int is_harmless = is_one_of(
        name,
        " HELLO AUTH CLIENT PING ECHO INFO COMMAND CONFIG EXISTS TTL PTTL TYPE STRLEN SELECT "
        "HGET HGETALL LRANGE SMEMBERS WATCH UNWATCH MULTI DISCARD READONLY DBSIZE ");
    const int is_write = !is_read && !is_harmless;
    if (is_write) begin_write(client);
    const uint64_t before = count_changes();
    const char* command = client->near.bytes + client->near.used;
    if (!send_all(client->far.descriptor, command, client->command_size)) return 0;
    const size_t size = read_reply(client);
    if (is_write) end_write();
    if (size == 0) return 0;
    const char* reply = client->far.bytes + client->far.used;
    if (is_word(name, "SELECT") && *reply == '+' && reply[1] == 'O' && client->arg_count == 2) {
        client->database = (uint16_t)strtoul(client->args[1].bytes, NULL, 10);
    }
    char* copy = malloc(size + 1);
    if (copy == NULL) fail("malloc");
    memcpy(copy, reply, size);
    copy[size] = 0;
    client->far.used += size;
    if (is_read) store_replies(client, copy, size, before);
    const int is_sent = send_all(client->near.descriptor, copy, size);
    free(copy);
    return is_sent;
}

static int hand_out(const struct client* client) {
    char line[128];
    const int size =
        snprintf(line, sizeof line, "+OK %u %016llx %llu 0\r\n", NEARKEY_SEGMENT_LAYOUT,
                 0x1020304050607080ULL, (unsigned long long)now_ns());
    struct iovec part = {line, (size_t)size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {{0}};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &segment_descriptor, sizeof segment_descriptor);
    return sendmsg(client->near.descriptor, &message, MSG_NOSIGNAL) == size;
}

static int answer_nearkey(const struct client* client) {
    if (client->arg_count == 2 && is_word(client->args[1], "SHM")) return hand_out(client);
    return send_all(client->near.descriptor, "+OK\r\n", 5);  // HITS n, CACHE ON
}

// Bytes as they come, in both directions: replies are no longer one for a command.
static void tunnel(struct client* client) {
    struct stream* from[2] = {&client->near, &client->far};
    for (;;) {
        for (int i = 0; i < 2; ++i) {
            const size_t size = from[i]->size - from[i]->used;
            if (!send_all(from[1 - i]->descriptor, from[i]->bytes + from[i]->used, size)) return;
            from[i]->used = from[i]->size;
        }
        struct pollfd polled[2] = {{client->near.descriptor, POLLIN, 0},
                                   {client->far.descriptor, POLLIN, 0}};
        if (poll(polled, 2, -1) <= 0) return;
        for (int i = 0; i < 2; ++i) {
            if (polled[i].revents != 0 && !read_more(from[i])) return;
        }
    }
}

static int connect_upstream(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, upstream_path, sizeof address.sun_path - 1);
    const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(descriptor, (const struct sockaddr*)&address, sizeof address) == 0)
        return descriptor;
    close(descriptor);
    return -1;
}

static void serve_commands(struct client* client) {
    for (;;) {
        while (!parse_command(client)) {
            if (!read_more(&client->near)) return;
        }
        const struct text name = client->args[0];
        const int is_reply_off =
            is_word(name, "CLIENT") && client->arg_count > 1 && is_word(client->args[1], "REPLY");
        if (is_reply_off || is_one_of(name, " SUBSCRIBE PSUBSCRIBE SSUBSCRIBE MONITOR ")) {
            tunnel(client);
            return;
        }
        if (!(is_word(name, "NEARKEY") ? answer_nearkey(client) : forward(client))) return;
        client->near.used += client->command_size;
    }
}

static void* serve(void* descriptor) {
    struct client* client = calloc(1, sizeof *client);
    if (client == NULL) fail("calloc");
    client->near.descriptor = (int)(intptr_t)descriptor;
    client->far.descriptor = connect_upstream();
    if (client->far.descriptor >= 0) {
        serve_commands(client);
        close(client->far.descriptor);
    }
    close(client->near.descriptor);
    free(client->near.bytes);
    free(client->far.bytes);
    free(client);
    return NULL;
}

// --- The process.

// As the daemon's own: sealed, held by a robust mutex of this thread, handed out to be read.
static void make_segment(void) {
    const uint64_t size = segment_writer_size(BUCKETS, ITEM_BYTES);
    const int descriptor = memfd_create("nearkey", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0 || ftruncate(descriptor, (off_t)size) != 0) fail("memfd_create");
    if (fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        fail("F_ADD_SEALS");
    void* base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (base == MAP_FAILED) fail("mmap");
    segment_writer_init(&writer, base, size, BUCKETS);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t* mutex = (pthread_mutex_t*)&((struct nearkey_segment_header*)base)->owner;
    if (pthread_mutex_init(mutex, &attributes) != 0 || pthread_mutex_lock(mutex) != 0)
        fail("pthread_mutex_lock");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    segment_descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (segment_descriptor < 0 || fchmod(descriptor, 0) != 0) fail("open");
}

static void* prove(void* unused) {
    (void)unused;
    for (;;) {
        segment_writer_set_source(&writer, 0, now_ns() / 1000000);
        const struct timespec rest = {0, PROOF_EVERY_MS * 1000000L};
        nanosleep(&rest, NULL);
    }
    return NULL;
}

int main(int argc, char** argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: segment_server SOCKET UPSTREAM_SOCKET [MAX_STALENESS_MS]\n");
        return 2;
    }
    upstream_path = argv[2];
    make_segment();
    if (argc > 3) segment_writer_set_staleness(&writer, strtoull(argv[3], NULL, 10));
    pthread_t thread;
    if (pthread_create(&thread, NULL, prove, NULL) != 0) fail("pthread_create");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    unlink(argv[1]);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (const struct sockaddr*)&address, sizeof address) != 0) fail(argv[1]);
    if (listen(listener, 64) != 0) fail("listen");
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        const int descriptor = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (descriptor < 0) continue;
        if (pthread_create(&thread, NULL, serve, (void*)(intptr_t)descriptor) != 0)
            fail("pthread_create");
        pthread_detach(thread);
    }
}
