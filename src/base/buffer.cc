#include "nearkey/base/buffer.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kFirstCapacity = 512;
// Above this, growing by half instead of doubling wastes less on big values.
constexpr size_t kDoublingMax = size_t{64} << 20;
}  // namespace

Buffer::Buffer(Buffer&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      begin_(std::exchange(other.begin_, 0)),
      end_(std::exchange(other.end_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    if (this != &other) {
        release();
        memory_ = std::exchange(other.memory_, nullptr);
        begin_ = std::exchange(other.begin_, 0);
        end_ = std::exchange(other.end_, 0);
        capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
}

Buffer::~Buffer() {
    std::free(memory_);
}

void Buffer::append(std::string_view bytes) {
    if (bytes.empty()) return;
    if (capacity_ - end_ < bytes.size()) make_room(bytes.size());
    std::memcpy(memory_ + end_, bytes.data(), bytes.size());
    end_ += bytes.size();
}

void Buffer::consume(size_t count) {
    CHECK(count <= size());
    begin_ += count;
    if (begin_ == end_) release();
}

void Buffer::truncate(size_t size) {
    CHECK(size <= this->size());
    end_ = begin_ + size;
    if (begin_ == end_) release();
}

void Buffer::make_room(size_t count) {
    const size_t used = size();
    // Moving costs at most as much as was consumed before, so appending stays O(1) on average.
    if (begin_ >= used) {
        if (used > 0) std::memmove(memory_, memory_ + begin_, used);
        begin_ = 0;
        end_ = used;
        if (capacity_ - end_ >= count) return;
    }
    // realloc() moves the pages of a large buffer, not its bytes.
    const size_t grown = capacity_ < kDoublingMax ? capacity_ * 2 : capacity_ + capacity_ / 2;
    const size_t capacity = std::max({kFirstCapacity, grown, end_ + count});
    char* memory = static_cast<char*>(std::realloc(memory_, capacity));
    CHECK(memory != nullptr);
    memory_ = memory;
    capacity_ = capacity;
}

void Buffer::release() {
    std::free(memory_);
    memory_ = nullptr;
    begin_ = end_ = capacity_ = 0;
}

}  // namespace nearkey
