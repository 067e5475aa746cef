// hiredis as applications use it: hiredis_client SOCKET [CASE,CASE...]
// A case that fails leaves through longjmp; what it opened is freed after it.
#define _GNU_SOURCE
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { timeout_s = 20, kept_max = 20000 };

static const char* address;
static char binary[256];
static jmp_buf case_end;
static char failure[400];
static redisReply* replies[kept_max];
static size_t reply_count;
static redisContext* contexts[64];
static size_t context_count;

#define fail(...) fail_at(__LINE__, __VA_ARGS__)
#define check(fact) ((fact) ? (void)0 : fail("not true: %s", #fact))
#define equal(expected, reply) equal_at(__LINE__, expected, reply)

__attribute__((noreturn, format(printf, 2, 3))) static void fail_at(int line, const char* format,
                                                                    ...) {
    va_list arguments;
    va_start(arguments, format);
    int used = snprintf(failure, sizeof failure, "line %d: ", line);
    vsnprintf(failure + used, sizeof failure - (size_t)used, format, arguments);
    va_end(arguments);
    for (char* at = failure; *at; at++) {
        if (*at < ' ' || *at > '~') *at = ' ';
    }
    longjmp(case_end, 1);
}

static redisContext* connect_to(void) {
    struct timeval timeout = {timeout_s, 0};
    redisContext* c = redisConnectUnixWithTimeout(address, timeout);
    check(c != NULL && context_count < 64);
    contexts[context_count++] = c;
    if (c->err) fail("connect: %s", c->errstr);
    redisSetTimeout(c, timeout);
    return c;
}

static redisReply* kept(redisReply* reply) {
    check(reply_count < kept_max);
    replies[reply_count++] = reply;
    return reply;
}

static redisReply* next_reply(redisContext* c) {
    void* reply = NULL;
    if (redisGetReply(c, &reply) != REDIS_OK) fail("no reply: %s", c->errstr);
    return kept(reply);
}

static redisReply* command(redisContext* c, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    redisReply* reply = redisvCommand(c, format, arguments);
    va_end(arguments);
    if (reply == NULL) fail("%s: %s", format, c->errstr);
    return kept(reply);
}

// A reply as one text: lists as [a b], nil as nil.
static void append_text(char* out, size_t size, const redisReply* r) {
    size_t used = strlen(out);
    if (r->type == REDIS_REPLY_INTEGER) {
        snprintf(out + used, size - used, "%lld", r->integer);
    } else if (r->type == REDIS_REPLY_NIL) {
        snprintf(out + used, size - used, "nil");
    } else if (r->elements > 0 || r->str == NULL) {
        strncat(out, "[", size - used - 1);
        for (size_t i = 0; i < r->elements; i++) {
            if (i > 0) strncat(out, " ", size - strlen(out) - 1);
            append_text(out, size, r->element[i]);
        }
        strncat(out, "]", size - strlen(out) - 1);
    } else {
        snprintf(out + used, size - used, "%s", r->str);
    }
}

static void equal_at(int line, const char* expected, const redisReply* reply) {
    static char text[1 << 16];
    text[0] = 0;
    append_text(text, sizeof text, reply);
    if (strcmp(expected, text) != 0) {
        fail_at(line, "expected %.120s, got %.120s", expected, text);
    }
}

static void is_error(const char* text, const redisReply* reply) {
    if (reply->type != REDIS_REPLY_ERROR || strstr(reply->str, text) == NULL) {
        fail("expected an error with %s, got type %d, %.80s", text, reply->type,
             reply->str ? reply->str : "");
    }
}

static bool is_bytes(const redisReply* reply, const char* bytes, size_t size) {
    return reply->str != NULL && reply->len == size && memcmp(reply->str, bytes, size) == 0;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void wait_blocked(redisContext* c, int count) {
    char wanted[40];
    snprintf(wanted, sizeof wanted, "blocked_clients:%d\r", count);
    double deadline = now() + timeout_s;
    while (strstr(command(c, "INFO clients")->str, wanted) == NULL) {
        if (now() > deadline) fail("never %s", wanted);
        usleep(5000);
    }
}

// Writes the command and does not wait for its reply.
static void send_only(redisContext* c, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    redisvAppendCommand(c, format, arguments);
    va_end(arguments);
    for (int done = 0; !done;)
        check(redisBufferWrite(c, &done) == REDIS_OK);
}

// Returns when the server has ended, has started again (empty) and answers.
static void restart_server(void) {
    char line[16];
    puts("restart");
    check(fgets(line, sizeof line, stdin) != NULL && strcmp(line, "done\n") == 0);
}

static void connect_case(void) {
    redisContext* app = connect_to();
    equal("PONG", command(app, "PING"));
    equal("OK", command(app, "SET %s %s EX %d", "connect:name", "value", 100));
    equal("value", command(app, "GET connect:name"));
    equal("nil", command(app, "GET connect:absent"));
    equal("2", command(app, "HSET connect:hash a 1 b zwei"));
    equal("[a 1 b zwei]", command(app, "HGETALL connect:hash"));
    equal("OK", command(app, "CLIENT SETNAME hiredis"));
    equal("hiredis", command(app, "CLIENT GETNAME"));
    check(command(app, "CLIENT ID")->integer > 0);
    is_error("not an integer", command(app, "INCR connect:name"));
    is_error("unknown command", command(app, "NOSUCHCOMMAND x"));
    redisContext* other = connect_to();
    equal("OK", command(other, "SELECT 5"));
    equal("nil", command(other, "GET connect:name"));
    command(other, "SET connect:five 5");
    equal("0", command(app, "EXISTS connect:five"));
    redisReply* hello = command(other, "HELLO 3");
    check(hello->type == REDIS_REPLY_MAP);
    check(command(app, "HGETALL connect:hash")->type == REDIS_REPLY_ARRAY);
    check(command(other, "SELECT 0")->type == REDIS_REPLY_STATUS);
    check(command(other, "HGETALL connect:hash")->type == REDIS_REPLY_MAP);
    check(command(other, "ZADD connect:zset 1.5 m")->integer == 1);
    check(command(other, "ZSCORE connect:zset m")->type == REDIS_REPLY_DOUBLE);
}

// hiredis has no pool; an application has several contexts, here all of them at work at once.
static void pool_case(void) {
    redisContext* pool[16];
    for (int i = 0; i < 16; i++)
        pool[i] = connect_to();
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 16; i++) {
            send_only(pool[i], "SET pool:%d %d", i, round);
            send_only(pool[i], "INCR pool:all");
            send_only(pool[i], "GET pool:%d", i);
        }
        for (int i = 0; i < 16; i++) {
            equal("OK", next_reply(pool[i]));
            next_reply(pool[i]);
            check(atoi(next_reply(pool[i])->str) == round);
        }
    }
    equal("800", command(pool[0], "GET pool:all"));
}

static void pipeline_case(void) {
    redisContext* app = connect_to();
    for (int i = 0; i < 1000; i++) {
        redisAppendCommand(app, "SET pipe:%d %d", i, i);
        redisAppendCommand(app, "GET pipe:%d", i);
    }
    for (int i = 0; i < 1000; i++) {
        equal("OK", next_reply(app));
        check(atoi(next_reply(app)->str) == i);
    }
    redisAppendCommand(app, "SET pipe:text x");
    redisAppendCommand(app, "INCR pipe:text");
    redisAppendCommand(app, "GET pipe:text");
    equal("OK", next_reply(app));
    is_error("not an integer", next_reply(app));
    equal("x", next_reply(app));
}

static void transaction_case(void) {
    redisContext* app = connect_to();
    equal("OK", command(app, "MULTI"));
    equal("QUEUED", command(app, "SET tx:n 1"));
    equal("QUEUED", command(app, "INCR tx:n"));
    equal("QUEUED", command(app, "GET tx:n"));
    equal("[OK 2 2]", command(app, "EXEC"));
    is_error("EXEC without MULTI", command(app, "EXEC"));
    command(app, "MULTI");
    is_error("wrong number", command(app, "GET"));
    is_error("EXECABORT", command(app, "EXEC"));
    command(app, "MULTI");
    command(app, "SET tx:n 9");
    equal("OK", command(app, "DISCARD"));
    equal("2", command(app, "GET tx:n"));
    const char* all[] = {"MULTI", "INCR tx:n", "INCR tx:n", "EXEC", "GET tx:n"};
    for (int i = 0; i < 5; i++)
        redisAppendCommand(app, all[i]);
    const char* expected[] = {"OK", "QUEUED", "QUEUED", "[3 4]", "4"};
    for (int i = 0; i < 5; i++)
        equal(expected[i], next_reply(app));
}

static void watch_case(void) {
    redisContext* app = connect_to();
    redisContext* other = connect_to();
    command(app, "SET watch:n 1");
    equal("OK", command(app, "WATCH watch:n"));
    command(other, "SET watch:n 10");
    command(app, "MULTI");
    command(app, "SET watch:n 2");
    equal("nil", command(app, "EXEC"));
    equal("OK", command(app, "WATCH watch:n watch:m"));
    equal("10", command(app, "GET watch:n"));
    command(app, "MULTI");
    command(app, "SET watch:n 11");
    equal("[OK]", command(app, "EXEC"));
    command(app, "WATCH watch:n");
    equal("OK", command(app, "UNWATCH"));
    command(other, "SET watch:n 12");
    command(app, "MULTI");
    command(app, "GET watch:n");
    equal("[12]", command(app, "EXEC"));
}

static int pushed;

static void on_push(void* context, void* reply) {
    (void)context;
    pushed += ((redisReply*)reply)->elements == 3;
    freeReplyObject(reply);
}

static void pubsub_case(void) {
    redisContext* app = connect_to();
    redisContext* listener = connect_to();
    send_only(listener, "SUBSCRIBE ps:a ps:b");
    equal("[subscribe ps:a 1]", next_reply(listener));
    equal("[subscribe ps:b 2]", next_reply(listener));
    equal("[psubscribe ps:* 3]", command(listener, "PSUBSCRIBE ps:*"));
    equal("2", command(app, "PUBLISH ps:a %b", binary, sizeof binary));
    redisReply* message = next_reply(listener);
    check(is_bytes(message->element[2], binary, sizeof binary));
    equal("pmessage", next_reply(listener)->element[0]);
    is_error("only", command(listener, "GET ps:key"));
    equal("[punsubscribe ps:* 2]", command(listener, "PUNSUBSCRIBE"));
    for (int i = 0; i < 300; i++)
        command(app, "PUBLISH ps:b %d", i);
    for (int i = 0; i < 300; i++)
        check(atoi(next_reply(listener)->element[2]->str) == i);
    send_only(listener, "UNSUBSCRIBE ps:a ps:b");
    next_reply(listener);
    equal("[unsubscribe ps:b 0]", next_reply(listener));
    equal("OK", command(listener, "SET ps:key x"));
    // RESP3: messages are pushes, and commands go on between them.
    redisContext* third = connect_to();
    redisSetPushCallback(third, on_push);
    command(third, "HELLO 3");
    send_only(third, "SUBSCRIBE ps:a");
    pushed = 0;
    for (double deadline = now() + timeout_s; pushed < 4;) {
        command(app, "PUBLISH ps:a x");
        equal("PONG", command(third, "PING"));
        if (now() > deadline) fail("no pushes");
    }
    equal("x", command(third, "GET ps:key"));
}

static void blocking_case(void) {
    redisContext* app = connect_to();
    redisContext* pops[] = {connect_to(), connect_to(), connect_to()};
    send_only(pops[0], "BLPOP bp:a bp:b 20");
    send_only(pops[1], "BLMOVE bp:c bp:d LEFT RIGHT 20");
    send_only(pops[2], "BZPOPMIN bp:z 20");
    wait_blocked(app, 3);
    command(app, "RPUSH bp:b 1 2");
    command(app, "RPUSH bp:c %b", binary, sizeof binary);
    command(app, "ZADD bp:z 3 m");
    equal("[bp:b 1]", next_reply(pops[0]));
    check(is_bytes(next_reply(pops[1]), binary, sizeof binary));
    equal("[bp:z m 3]", next_reply(pops[2]));
    equal("nil", command(app, "BLPOP bp:none 0.1"));
    wait_blocked(app, 0);
}

static void streams_case(void) {
    redisContext* app = connect_to();
    equal("OK", command(app, "XGROUP CREATE st group 0 MKSTREAM"));
    is_error("BUSYGROUP", command(app, "XGROUP CREATE st group 0"));
    for (int i = 1; i <= 5; i++)
        command(app, "XADD st %d-0 n %d", i, i);
    equal("[[st [[1-0 [n 1]] [2-0 [n 2]]]]]",
          command(app, "XREADGROUP GROUP group one COUNT 2 STREAMS st >"));
    equal("[[st [[3-0 [n 3]] [4-0 [n 4]] [5-0 [n 5]]]]]",
          command(app, "XREADGROUP GROUP group two STREAMS st >"));
    equal("2", command(app, "XACK st group 1-0 2-0"));
    equal("[3 3-0 5-0 [[two 3]]]", command(app, "XPENDING st group"));
    equal("[[3-0 [n 3]]]", command(app, "XCLAIM st group one 0 3-0"));
    redisContext* late = connect_to();
    send_only(late, "XREADGROUP GROUP group one BLOCK 20000 STREAMS st >");
    wait_blocked(app, 1);
    equal("6-0", command(app, "XADD st 6-0 n late"));
    equal("[[st [[6-0 [n late]]]]]", next_reply(late));
}

static void scripts_case(void) {
    redisContext* app = connect_to();
    equal("[a 1]", command(app, "EVAL %s 1 a 1", "return {KEYS[1], ARGV[1]}"));
    const char* code = "return redis.call('incrby', KEYS[1], ARGV[1])";
    char sha[64];
    snprintf(sha, sizeof sha, "%s", command(app, "SCRIPT LOAD %s", code)->str);
    equal("5", command(app, "EVALSHA %s 1 sum 5", sha));
    equal("[1]", command(app, "SCRIPT EXISTS %s", sha));
    equal("OK", command(app, "SCRIPT FLUSH"));
    is_error("NOSCRIPT", command(app, "EVALSHA %s 1 sum 5", sha));
    is_error("my own", command(app, "EVAL %s 0", "return redis.error_reply('my own')"));
}

static void scan_case(void) {
    static char found[1000];
    memset(found, 0, sizeof found);
    redisContext* app = connect_to();
    for (int i = 0; i < 1000; i++)
        redisAppendCommand(app, "SET scan:%d 1", i);
    for (int i = 0; i < 1000; i++)
        next_reply(app);
    char cursor[32] = "0";
    do {
        redisReply* reply = command(app, "SCAN %s MATCH scan:* COUNT 100", cursor);
        snprintf(cursor, sizeof cursor, "%s", reply->element[0]->str);
        for (size_t i = 0; i < reply->element[1]->elements; i++) {
            found[atoi(reply->element[1]->element[i]->str + strlen("scan:"))] = 1;
        }
    } while (strcmp(cursor, "0") != 0);
    check(memchr(found, 0, sizeof found) == NULL);
}

static void binary_case(void) {
    static char value[1 << 20];
    redisContext* app = connect_to();
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (char)(i * 2654435761u >> 13);
    const char* keys[] = {binary, "", "\r\n$-1\r\n", "schl\xc3\xbcssel"};
    const size_t sizes[] = {sizeof binary, 0, 7, 10};
    for (int i = 0; i < 4; i++) {
        equal("OK", command(app, "SET %b %b", keys[i], sizes[i], value, sizeof value));
        check(is_bytes(command(app, "GET %b", keys[i], sizes[i]), value, sizeof value));
        equal("OK", command(app, "SET %b %b", keys[i], sizes[i], "", (size_t)0));
        check(is_bytes(command(app, "GET %b", keys[i], sizes[i]), "", 0));
    }
}

static void reconnect_case(void) {
    redisContext* app = connect_to();
    command(app, "SET rc:key old");
    restart_server();
    double deadline = now() + timeout_s;
    for (;;) {
        redisReply* reply = redisCommand(app, "SET rc:key new");
        bool is_set = reply != NULL && reply->type == REDIS_REPLY_STATUS;
        freeReplyObject(reply);
        if (is_set) break;
        if (now() > deadline) fail("no SET works: %s", app->errstr);
        if (app->err) redisReconnect(app);
        usleep(5000);
    }
    equal("new", command(app, "GET rc:key"));
    command(app, "MULTI");
    command(app, "SET rc:tx 1");
    equal("[OK]", command(app, "EXEC"));
}

// The smallest event loop for one asynchronous context: what it waits for.
static struct { bool read, write; } wanted;

static void add_read(void* data) {
    ((void)data, wanted.read = true);
}
static void del_read(void* data) {
    ((void)data, wanted.read = false);
}
static void add_write(void* data) {
    ((void)data, wanted.write = true);
}
static void del_write(void* data) {
    ((void)data, wanted.write = false);
}

static int async_gets, async_messages;
static bool is_disconnected;

static void on_get(redisAsyncContext* c, void* reply, void* expected) {
    (void)c;
    async_gets += reply != NULL && atoi(((redisReply*)reply)->str) == (int)(long)expected;
}

static void on_message(redisAsyncContext* c, void* data, void* unused) {
    const redisReply* reply = data;
    (void)unused;
    if (reply == NULL || reply->elements != 3) return;
    if (strcmp(reply->element[0]->str, "message") == 0 && ++async_messages == 100) {
        redisAsyncCommand(c, NULL, NULL, "UNSUBSCRIBE");
        redisAsyncDisconnect(c);
    }
}

static void on_disconnect(const redisAsyncContext* c, int status) {
    (void)c;
    is_disconnected = status == REDIS_OK;
}

static void async_case(void) {
    redisContext* app = connect_to();
    redisAsyncContext* c = redisAsyncConnectUnix(address);
    check(c != NULL && !c->err);
    c->ev.addRead = add_read;
    c->ev.delRead = del_read;
    c->ev.addWrite = add_write;
    c->ev.delWrite = del_write;
    redisAsyncSetDisconnectCallback(c, on_disconnect);
    async_gets = async_messages = 0;
    is_disconnected = false;
    wanted.read = wanted.write = true;
    for (long i = 0; i < 500; i++) {
        redisAsyncCommand(c, NULL, NULL, "SET async:%ld %ld", i, i);
        redisAsyncCommand(c, on_get, (void*)i, "GET async:%ld", i);
    }
    redisAsyncCommand(c, on_message, NULL, "SUBSCRIBE async:news");
    int published = 0;
    for (double deadline = now() + timeout_s; !is_disconnected && now() < deadline;) {
        struct pollfd fd = {c->c.fd, 0, 0};
        fd.events = (short)((wanted.read ? POLLIN : 0) | (wanted.write ? POLLOUT : 0));
        poll(&fd, 1, 5);
        if (fd.revents & POLLOUT) redisAsyncHandleWrite(c);
        if (fd.revents & (POLLIN | POLLHUP | POLLERR)) redisAsyncHandleRead(c);
        if (published < 100) published += command(app, "PUBLISH async:news x")->integer == 1;
    }
    check(async_gets == 500 && async_messages == 100 && is_disconnected);
}

static const struct {
    const char* name;
    void (*function)(void);
} cases[] = {
    {"connect", connect_case},       {"pool", pool_case},
    {"pipeline", pipeline_case},     {"transaction", transaction_case},
    {"watch", watch_case},           {"pubsub", pubsub_case},
    {"blocking-pop", blocking_case}, {"streams", streams_case},
    {"scripts", scripts_case},       {"scan", scan_case},
    {"binary", binary_case},         {"async", async_case},
    {"reconnect", reconnect_case},
};

static bool is_wanted(const char* name, const char* names) {
    if (names == NULL) return true;
    size_t length = strlen(name);
    for (const char* at = names; (at = strstr(at, name)) != NULL; at += length) {
        bool starts = at == names || at[-1] == ',';
        if (starts && (at[length] == ',' || at[length] == 0)) return true;
    }
    return false;
}

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    address = argv[1];
    for (int i = 0; i < 256; i++)
        binary[i] = (char)i;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);  // A lost connection is an error of the context.
    bool failed = false;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!is_wanted(cases[i].name, argc > 2 ? argv[2] : NULL)) continue;
        if (setjmp(case_end) == 0) {
            cases[i].function();
            printf("%s: ok\n", cases[i].name);
        } else {
            failed = true;
            printf("%s: FAIL %s\n", cases[i].name, failure);
        }
        while (reply_count > 0)
            freeReplyObject(replies[--reply_count]);
        while (context_count > 0)
            redisFree(contexts[--context_count]);
    }
    return failed;
}
