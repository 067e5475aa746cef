// A byte queue: appended at the end, consumed at the front, in one piece of memory.
// Grows without filling its memory first; gives all memory back when it is emptied (an idle client
// keeps no buffer). Blocks of up to 64 KiB go to a small store of their thread, from which the next
// buffer is made: in the steady state nothing is allocated. Views are valid until the next call
// that is not const.
#pragma once

#include <cstddef>
#include <string_view>

namespace nearkey {

class Buffer {
public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();

    std::string_view view() const { return {memory_ + begin_, end_ - begin_}; }
    size_t size() const { return end_ - begin_; }
    bool empty() const { return begin_ == end_; }
    // Bytes of memory held, for accounting.
    size_t capacity() const { return capacity_; }

    void append(std::string_view bytes);
    // Drops the first `count` bytes. REQUIRES: count <= size().
    void consume(size_t count);
    // Drops all bytes after the first `size`. REQUIRES: size <= this->size().
    void truncate(size_t size);

private:
    void make_room(size_t count);
    void grow(size_t capacity);
    void release();

    char* memory_ = nullptr;
    size_t begin_ = 0;
    size_t end_ = 0;
    size_t capacity_ = 0;
};

}  // namespace nearkey
