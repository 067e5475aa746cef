// What becomes of a handle when its process forks, and what others may do: a child, another time
// namespace, another user, a daemon that is killed. And that a hit makes no system call.
#include "handles.h"
#include "nearkey/cache/segment.h"
#include "seccomp.h"
#include "segment_host.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <string>

namespace nearkey::client {

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kIsAddressSanitized = true;
#elif defined(__has_feature)
constexpr bool kIsAddressSanitized = __has_feature(address_sanitizer);
#else
constexpr bool kIsAddressSanitized = false;
#endif

// The exit status of what a child of fork() says.
template <class F>
int status_of_child(F&& run) {
    const pid_t child = fork();
    if (child == 0) _exit(run());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

}  // namespace

TEST_CASE("client: a child of fork() goes on, counts from zero and may refresh at once") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("k", "1");
    const Handle cache = open_handle(host.url());
    for (int i = 0; i < 10; ++i)
        get(cache, "k");
    CHECK(status_of_child([&] {
              if (get(cache, "k").value != "1") return 1;
              if (info_of(cache).hits != 1) return 2;
              segment_writer_set_owner(&memory.writer(), NEARKEY_SEGMENT_OWNER_DIED);
              if (get(cache, "k").result != NEARKEY_OFF) return 3;
              segment_writer_set_owner(&memory.writer(), 1);
              return 0;
          }) == 0);
    CHECK(info_of(cache).hits == 10);
    CHECK(get(cache, "k").value == "1");
}

TEST_CASE("client: a child in another time namespace is off, and stays so") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("k", "1");
    const Handle cache = open_handle(host.url());
    constexpr int kNotPermitted = 77;
    const int status = status_of_child([&] {
        if (unshare(CLONE_NEWTIME) != 0) return kNotPermitted;
        std::ofstream("/proc/self/timens_offsets") << "boottime -500 0\n";
        return status_of_child([&] {
            if (get(cache, "k").result != NEARKEY_OFF) return 1;
            if (why_off(cache).find("time namespace") == std::string::npos) return 2;
            if (nearkey_refresh(cache.get()) != 0) return 3;
            if (why_off(cache).find("clock") == std::string::npos) return 4;
            return get(cache, "k").result == NEARKEY_OFF ? 0 : 5;
        });
    });
    if (status == kNotPermitted) {
        MESSAGE("skipped: no permission to make a time namespace");
        return;
    }
    CHECK(status == 0);
    CHECK(get(cache, "k").value == "1");
}

TEST_CASE("client: what is mapped can neither be written nor be found in a core dump") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    const Handle cache = open_handle(host.url());
    std::ifstream maps("/proc/self/smaps");
    std::string line;
    bool is_ours = false;
    bool has_flag = false;
    uintptr_t base = 0;
    while (std::getline(maps, line)) {
        if (line.find("r--s") != std::string::npos &&
            line.find("memfd:nearkey") != std::string::npos) {
            is_ours = true;
            base = std::stoull(line, nullptr, 16);
        }
        if (is_ours && line.rfind("VmFlags:", 0) == 0) {
            has_flag = line.find(" dd") != std::string::npos;
            break;
        }
    }
    REQUIRE(base != 0);
    CHECK(has_flag);
    CHECK(mprotect(reinterpret_cast<void*>(base), 4096, PROT_READ | PROT_WRITE) != 0);
    CHECK(errno == EACCES);
    // Nor does the descriptor that was handed out do more.
    CHECK(ftruncate(memory.read_only(), 0) != 0);
    CHECK(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, memory.read_only(), 0) == MAP_FAILED);
    CHECK(fcntl(memory.read_only(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
}

TEST_CASE("client: a hit makes no system call") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("k", "1");
    const Handle cache = open_handle(host.url(), 16);
    if (kIsAddressSanitized || info_of(cache).clock_ns > 1000) {
        MESSAGE("skipped: the sanitizer makes system calls, or the clock is one here");
        return;
    }
    char values[2][4];
    nearkey_slice slices[2] = {{"k", 1, values[0], 4, 0}, {"k", 1, values[1], 4, 0}};
    CHECK(status_of_child([&] {
              get(cache, "k");  // The first one of a child looks at its time namespace.
              if (!allow_only_exit()) return 77;
              int hits = 0;
              for (int i = 0; i < 100'000; ++i) {
                  char value[4];
                  hits += nearkey_get(cache.get(), "k", 1, value, sizeof value) == 1 ? 1 : 0;
                  nearkey_get(cache.get(), "x", 1, value, sizeof value);
                  nearkey_mget(cache.get(), slices, 2);
              }
              return hits > 90'000 ? 0 : 1;
          }) == 0);
}

TEST_CASE("client: once the daemon is killed nothing is a hit any more") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("k", "1");
    const Handle cache = open_handle(host.url());
    auto* const mutex = reinterpret_cast<pthread_mutex_t*>(memory.bytes() +
                                                           offsetof(nearkey_segment_header, owner));
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    const pid_t daemon = fork();
    if (daemon == 0) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(mutex, &attributes);
        pthread_mutex_lock(mutex);
        (void)!write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    char byte;
    REQUIRE(read(ready[0], &byte, 1) == 1);
    CHECK(get(cache, "k").value == "1");
    kill(daemon, SIGKILL);
    waitpid(daemon, nullptr, 0);
    CHECK(get(cache, "k").result == NEARKEY_OFF);
    CHECK(why_off(cache).find("ended") != std::string::npos);
    close(ready[0]);
    close(ready[1]);
}

TEST_CASE("client: who was handed a segment cannot change it, another user not even open it anew") {
    SegmentMemory memory({});
    memory.put("k", "1");
    const std::string path = "/proc/self/fd/" + std::to_string(memory.read_only());
    const auto attempts = [&] {
        if (fallocate(memory.read_only(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0)
            return 1;
        if (ftruncate(memory.read_only(), 0) == 0) return 2;
        if (fcntl(memory.read_only(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0) return 3;
        void* const map = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, memory.read_only(), 0);
        if (map == MAP_FAILED) return 4;
        if (mprotect(map, 4096, PROT_READ | PROT_WRITE) == 0) return 5;
        if (madvise(map, 4096, MADV_REMOVE) == 0) return 6;
        if (pwrite(memory.read_only(), "x", 1, 0) >= 0) return 7;
        return 0;
    };
    CHECK(status_of_child(attempts) == 0);
    const int status = status_of_child([&] {
        if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0) return 77;
        for (const int mode : {O_RDWR, O_WRONLY, O_RDONLY}) {
            if (open(path.c_str(), mode) >= 0) return 20 + mode;
        }
        if (fchmod(memory.read_only(), 0666) == 0) return 30;
        return attempts();
    });
    if (status == 77) {
        MESSAGE("skipped: only root can become another user");
        return;
    }
    CHECK(status == 0);
}

}  // namespace nearkey::client
