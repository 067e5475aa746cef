#define _GNU_SOURCE  // F_GET_SEALS, MSG_CMSG_CLOEXEC, CLOCK_BOOTTIME
#include "handout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "nearkey/cache/segment.h"

enum { ANSWER_MAX = 256, DESCRIPTORS_MAX = 4 };

#define NS_PER_MS UINT64_C(1000000)

static const char kRequest[] = "*2\r\n$7\r\nNEARKEY\r\n$3\r\nSHM\r\n";

// What came back, and the moments between which it was said.
struct answer {
    char text[ANSWER_MAX + 1];
    int descriptor;  // -1: none came with it
    uint64_t before_ns;
    uint64_t after_ns;
};

uint64_t handout_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 * NS_PER_MS + (uint64_t)now.tv_nsec;
}

static const char* connect_to(const char* path, uint32_t timeout_ms, int* descriptor) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    *descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*descriptor < 0) return "no socket could be made";
    // A queue of connections that is full makes connect() wait, too.
    const struct timeval bound = {.tv_sec = timeout_ms / 1000,
                                  .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    setsockopt(*descriptor, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound);
    if (connect(*descriptor, (const struct sockaddr*)&address, sizeof address) == 0) return NULL;
    switch (errno) {
        case EACCES:
        case EPERM:
            return "no permission to connect to nearkey's socket";
        case EAGAIN:
        case EINTR:
            return "nearkey took the connection not in time";
        default:
            return "nearkey's socket is not there, or nobody listens on it";
    }
}

// Keeps the first descriptor; whatever else was sent is closed.
static void take_descriptors(struct msghdr* message, struct answer* answer) {
    for (struct cmsghdr* part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(part) + i * sizeof descriptor, sizeof descriptor);
            if (answer->descriptor < 0) {
                answer->descriptor = descriptor;
            } else {
                close(descriptor);
            }
        }
    }
}

// Waits until there is something to read; 0: not in time.
static int wait_until(int descriptor, uint64_t deadline_ns) {
    for (;;) {
        const uint64_t now = handout_now_ns();
        if (now >= deadline_ns) return 0;
        struct pollfd poll_entry = {.fd = descriptor, .events = POLLIN};
        const int timeout_ms = (int)((deadline_ns - now) / NS_PER_MS) + 1;
        const int ready = poll(&poll_entry, 1, timeout_ms);
        if (ready > 0) return 1;
        if (ready < 0 && errno != EINTR) return 0;
    }
}

// A line, and the descriptor that came with it.
static const char* read_answer(int descriptor, uint64_t deadline_ns, struct answer* answer) {
    size_t size = 0;
    while (size == 0 || answer->text[size - 1] != '\n') {
        if (size == ANSWER_MAX) return "nearkey's answer is not understood";
        if (!wait_until(descriptor, deadline_ns)) return "nearkey did not answer in time";
        struct iovec part = {answer->text + size, ANSWER_MAX - size};
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
        } control;
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof control.bytes};
        const ssize_t got = recvmsg(descriptor, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got <= 0) return "nearkey closed the connection before it answered";
        take_descriptors(&message, answer);
        size += (size_t)got;
        answer->text[size] = 0;
    }
    answer->after_ns = handout_now_ns();
    return NULL;
}

static const char* ask(const char* path, uint32_t timeout_ms, struct answer* answer) {
    const uint64_t deadline_ns = handout_now_ns() + timeout_ms * NS_PER_MS;
    int connection;
    const char* why = connect_to(path, timeout_ms, &connection);
    if (why == NULL) {
        answer->before_ns = handout_now_ns();
        const ssize_t size = sizeof kRequest - 1;
        if (send(connection, kRequest, (size_t)size, MSG_NOSIGNAL) != size) {
            why = "nearkey closed the connection before it answered";
        } else {
            why = read_answer(connection, deadline_ns, answer);
        }
    }
    if (connection >= 0) close(connection);
    return why;
}

static const char* why_refused(const char* error) {
    if (strncmp(error, "-ERR unknown command", 20) == 0) {
        return "what listens there is no nearkey, or one that has no shared memory";
    }
    if (strncmp(error, "-ERR shared memory is off", 25) == 0) {
        return "nearkey hands out no segment on this socket (listener.shared_memory)";
    }
    return "nearkey refused to hand out its segment (NEARKEY SHM tells why)";
}

// "+OK <layout> <incarnation> <clock> <database>\r\n"
static const char* check_answer(const struct answer* answer, uint64_t* incarnation,
                                uint16_t* database) {
    if (answer->text[0] == '-') return why_refused(answer->text);
    uint32_t layout;
    if (sscanf(answer->text, "+OK %" SCNu32, &layout) != 1) {
        return "nearkey's answer is not understood";
    }
    if (layout != NEARKEY_SEGMENT_LAYOUT) {
        return "nearkey's segment has a layout that this libnearkey-client does not know";
    }
    uint64_t clock_ns;
    uint32_t begins_in;
    char end;
    const int count = sscanf(answer->text, "+OK %*u %16" SCNx64 " %19" SCNu64 " %5" SCNu32 "%c",
                             incarnation, &clock_ns, &begins_in, &end);
    if (count != 4 || end != '\r' || begins_in > UINT16_MAX || answer->descriptor < 0) {
        return "nearkey's answer is not understood";
    }
    // In another time namespace the age of a proof would be another one.
    if (clock_ns < answer->before_ns || clock_ns > answer->after_ns) {
        return "nearkey's clock is not this process's: another time namespace, or another host";
    }
    *database = (uint16_t)begins_in;
    return NULL;
}

// The size is asked for when nobody can change it any more: a map beyond the end is a SIGBUS.
static const char* map(int descriptor, struct handout* handout) {
    const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
    const int seals = fcntl(descriptor, F_GET_SEALS);
    if (seals < 0 || (seals & needed) != needed) {
        return "the segment could be made smaller while it is read (its seals are missing)";
    }
    struct stat status;
    if (fstat(descriptor, &status) != 0 || status.st_size <= 0) {
        return "the segment has no size";
    }
    handout->size = (size_t)status.st_size;
    handout->base = mmap(NULL, handout->size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (handout->base == MAP_FAILED) return "the segment could not be mapped";
    // A core dump of this process would hold all of the cache.
    madvise(handout->base, handout->size, MADV_DONTDUMP);
    return NULL;
}

static const char* check_segment(uint64_t incarnation, struct handout* handout) {
    if (segment_view_init(&handout->view, handout->base, handout->size) != 0 ||
        handout->view.incarnation != incarnation) {
        return "the segment does not fit together";
    }
    return NULL;
}

const char* handout_fetch(const char* path, uint32_t timeout_ms, struct handout* handout) {
    struct answer answer = {.descriptor = -1};
    uint64_t incarnation = 0;
    const char* why = ask(path, timeout_ms, &answer);
    if (why == NULL) why = check_answer(&answer, &incarnation, &handout->database);
    if (why == NULL) why = map(answer.descriptor, handout);
    if (answer.descriptor >= 0) close(answer.descriptor);
    if (why != NULL) return why;
    why = check_segment(incarnation, handout);
    if (why != NULL) munmap(handout->base, handout->size);
    return why;
}
