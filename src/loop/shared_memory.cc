#include "nearkey/loop/shared_memory.h"

#include "nearkey/base/check.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

namespace nearkey {

namespace {

void require(bool is_done, const char* what) {
    if (!is_done) throw std::system_error(errno, std::generic_category(), what);
}

// Above the limit ftruncate() would be a SIGXFSZ, which ends the process.
void require_file_size(size_t size) {
    rlimit limit{};
    require(getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
    if (limit.rlim_cur >= size) return;
    throw std::system_error(EFBIG, std::generic_category(), "RLIMIT_FSIZE");
}

}  // namespace

// Nobody can be given the right to write: with mode 0 no other user may open the file anew, and a
// descriptor to read can't be made one to write.
SharedMemory::SharedMemory(size_t size, size_t owner_at) : owner_at_(owner_at) {
    memory_ = UniqueFd(memfd_create("nearkey-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    require(memory_.get() >= 0, "memfd_create");
    require_file_size(size);
    require(ftruncate(memory_.get(), static_cast<off_t>(size)) == 0, "ftruncate");
    require(fcntl(memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0,
            "F_ADD_SEALS");
    const std::string self = "/proc/self/fd/" + std::to_string(memory_.get());
    reader_ = UniqueFd(open(self.c_str(), O_RDONLY | O_CLOEXEC));
    require(reader_.get() >= 0, self.c_str());
    require(fchmod(memory_.get(), 0) == 0, "fchmod");
    void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
    require(at != MAP_FAILED, "mmap");
    bytes_ = {static_cast<char*>(at), size};
    // Keys and values are not for core dumps.
    static_cast<void>(madvise(at, size, MADV_DONTDUMP));
    auto* const mutex = reinterpret_cast<pthread_mutex_t*>(bytes_.data() + owner_at_);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    NEARKEY_CHECK(pthread_mutex_lock(mutex) == 0);
    is_owned_ = true;
}

SharedMemory::~SharedMemory() {
    give_up();
    munmap(bytes_.data(), bytes_.size());
}

UniqueFd SharedMemory::reader() const {
    return UniqueFd(fcntl(reader_.get(), F_DUPFD_CLOEXEC, 0));
}

void SharedMemory::give_up() {
    if (!is_owned_) return;
    is_owned_ = false;
    auto* const mutex = reinterpret_cast<pthread_mutex_t*>(bytes_.data() + owner_at_);
    NEARKEY_CHECK(pthread_mutex_unlock(mutex) == 0);
}

void SharedMemory::wipe(size_t from, size_t to) {
    // Where holes can not be punched the bytes are gone at least.
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (fallocate(memory_.get(), mode, static_cast<off_t>(from), static_cast<off_t>(to - from)) ==
        0) {
        return;
    }
    std::fill(bytes_.begin() + static_cast<ptrdiff_t>(from),
              bytes_.begin() + static_cast<ptrdiff_t>(to), '\0');
}

}  // namespace nearkey
