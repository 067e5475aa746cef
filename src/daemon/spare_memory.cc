#include "nearkey/daemon/spare_memory.h"

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <charconv>

namespace nearkey {

namespace {

uint64_t unaccounted(const MemoryFigures& figures) {
    return figures.resident - std::min(figures.resident, figures.accounted);
}

uint64_t worth_giving_back(const MemoryFigures& figures) {
    return std::max(SpareMemory::kBytesMin, figures.resident / SpareMemory::kShareMin);
}

}  // namespace

bool SpareMemory::is_due(const MemoryFigures& figures) {
    const uint64_t now = unaccounted(figures);
    const uint64_t least = worth_giving_back(figures);
    needed_ = std::min(needed_, now);
    left_ = std::min(left_, now);
    if (now - left_ >= least) looks_wanted_ = kLooksMin;
    looks_ = now - needed_ >= least ? looks_ + 1 : 0;
    return looks_ >= looks_wanted_;
}

void SpareMemory::settle(const MemoryFigures& figures) {
    left_ = unaccounted(figures);
    needed_ = std::min(needed_, left_);
    const bool is_rest_spare = left_ - needed_ >= worth_giving_back(figures);
    looks_wanted_ = is_rest_spare ? std::min(looks_wanted_ * 2, kLooksMax) : kLooksMin;
    looks_ = 0;
}

uint64_t resident_bytes() {
    char text[128];
    const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    const ssize_t count = read(fd, text, sizeof text);
    close(fd);
    // In pages: all, resident, and of these the ones of files, which the kernel takes back itself.
    uint64_t pages[3] = {};
    const char* next = text;
    const char* end = text + std::max<ssize_t>(count, 0);
    for (uint64_t& number : pages) {
        next = std::find_if(next, end, [](char c) { return c != ' '; });
        next = std::from_chars(next, end, number).ptr;
    }
    const uint64_t anonymous = pages[1] - std::min(pages[1], pages[2]);
    return anonymous * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace nearkey
