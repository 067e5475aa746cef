// Memory that other processes may map to read it, and that nobody but us can write or resize.
// Owned by whoever made it, on the thread that has made it: while that thread lives, and until
// give_up(), a word of it says so. The kernel marks the word when the thread is gone, before it
// closes the process's sockets, so that readers know of its end before anybody else does.
#pragma once

#include "nearkey/base/unique_fd.h"

#include <cstddef>
#include <span>

namespace nearkey {

class SharedMemory {
public:
    // `size` bytes of zeros, which cost memory once they are used. At `owner_at` is the word, with
    // room for a mutex. Throws std::system_error.
    SharedMemory(size_t size, size_t owner_at);
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    std::span<char> bytes() const { return bytes_; }
    // A descriptor that can be read and mapped to read, for another process.
    UniqueFd reader() const;
    // The word says from now on that nobody owns it.
    void give_up();
    // These bytes, whole pages, become zeros for everybody, and cost no memory.
    void wipe(size_t from, size_t to);

private:
    UniqueFd memory_;
    UniqueFd reader_;
    std::span<char> bytes_;
    const size_t owner_at_;
    bool is_owned_ = false;
};

}  // namespace nearkey
