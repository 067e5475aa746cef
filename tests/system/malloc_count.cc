// Preloaded into a program, counts its allocations: in the file that NEARKEY_MALLOC_COUNT names, as
// one number of 64 bits. Nothing is counted without it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
}

namespace {

std::atomic<uint64_t>* allocations = nullptr;

[[gnu::constructor]] void open_count() {
    const char* path = std::getenv("NEARKEY_MALLOC_COUNT");
    if (path == nullptr) return;
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void* shared =
        mmap(nullptr, sizeof *allocations, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared != MAP_FAILED) allocations = static_cast<std::atomic<uint64_t>*>(shared);
    close(fd);
}

void count() {
    if (allocations != nullptr) allocations->fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {

[[gnu::visibility("default")]] void* malloc(size_t size) noexcept {
    count();
    return __libc_malloc(size);
}

[[gnu::visibility("default")]] void* calloc(size_t number, size_t size) noexcept {
    count();
    return __libc_calloc(number, size);
}

[[gnu::visibility("default")]] void* realloc(void* memory, size_t size) noexcept {
    count();
    return __libc_realloc(memory, size);
}
}
