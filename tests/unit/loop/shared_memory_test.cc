#include "nearkey/loop/shared_memory.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>

namespace nearkey::shared_memory_test {

namespace {

constexpr size_t kSize = size_t{1} << 20;
constexpr size_t kOwnerAt = 128;

uint32_t owner_of(const SharedMemory& memory) {
    uint32_t owner = 0;
    std::memcpy(&owner, memory.bytes().data() + kOwnerAt, sizeof owner);
    return owner;
}

}  // namespace

TEST_CASE("shared memory: a reader sees what is written, and can't write, resize or wipe") {
    const SharedMemory memory(kSize, kOwnerAt);
    const UniqueFd reader = memory.reader();
    void* const mapped = mmap(nullptr, kSize, PROT_READ, MAP_SHARED, reader.get(), 0);
    REQUIRE(mapped != MAP_FAILED);
    memory.bytes()[5000] = 'x';
    CHECK(static_cast<const char*>(mapped)[5000] == 'x');
    CHECK(mprotect(mapped, kSize, PROT_READ | PROT_WRITE) == -1);
    CHECK(mmap(nullptr, kSize, PROT_WRITE, MAP_SHARED, reader.get(), 0) == MAP_FAILED);
    CHECK(write(reader.get(), "y", 1) == -1);
    CHECK(ftruncate(reader.get(), 0) == -1);
    CHECK(fallocate(reader.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == -1);
    CHECK((fcntl(reader.get(), F_GETFL) & O_ACCMODE) == O_RDONLY);
    const int seals = fcntl(reader.get(), F_GET_SEALS);
    CHECK((seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) ==
          (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    struct stat about {};
    CHECK(fstat(reader.get(), &about) == 0);
    CHECK((about.st_mode & 0777) == 0);
    munmap(mapped, kSize);
}

TEST_CASE("shared memory: what is wiped is zeros for those who have it mapped") {
    SharedMemory memory(kSize, kOwnerAt);
    const UniqueFd reader = memory.reader();
    void* const mapped = mmap(nullptr, kSize, PROT_READ, MAP_SHARED, reader.get(), 0);
    REQUIRE(mapped != MAP_FAILED);
    memory.bytes()[4096] = 'x';
    memory.bytes()[kSize - 1] = 'y';
    memory.wipe(4096, kSize);
    CHECK(static_cast<const char*>(mapped)[4096] == '\0');
    CHECK(static_cast<const char*>(mapped)[kSize - 1] == '\0');
    CHECK(owner_of(memory) != 0);
    munmap(mapped, kSize);
}

TEST_CASE("shared memory: a limit of the size of files is an error, not the end of the process") {
    rlimit former{};
    REQUIRE(getrlimit(RLIMIT_FSIZE, &former) == 0);
    rlimit small = former;
    small.rlim_cur = kSize - 1;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_THROWS_AS(SharedMemory(kSize, kOwnerAt), std::system_error);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &former) == 0);
}

TEST_CASE("shared memory: its word says that its thread lives, and that it does no more") {
    {
        SharedMemory memory(kSize, kOwnerAt);
        CHECK((owner_of(memory) & 0x3fffffff) == static_cast<uint32_t>(gettid()));
        memory.give_up();
        CHECK(owner_of(memory) == 0);
        memory.give_up();
    }
    std::unique_ptr<SharedMemory> memory;
    std::thread([&memory] { memory = std::make_unique<SharedMemory>(kSize, kOwnerAt); }).join();
    // The kernel's mark.
    CHECK((owner_of(*memory) & 0x40000000) != 0);
    // Nobody is left who could give it up; the leak sanitizer sees that it is kept.
    [[maybe_unused]] static const SharedMemory* const kept = memory.release();
}

}  // namespace nearkey::shared_memory_test
