#include "nearkey/base/buffer.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kFirstCapacity = 512;
// Above this, growing by a quarter instead of doubling wastes less on big values.
constexpr size_t kDoublingMax = size_t{8} << 20;

// Empty blocks for the next buffers, the last one first: its memory is still in the processor's
// cache. At most kBytesMax are kept of each size, a power of two from kFirstCapacity to kSizeMax.
class BlockStore {
public:
    static constexpr size_t kSizeMax = size_t{64} << 10;

    BlockStore() = default;
    ~BlockStore() {
        for (List& list : lists_) {
            while (list.first != nullptr)
                std::free(list.pop());
        }
    }
    BlockStore(const BlockStore&) = delete;
    BlockStore& operator=(const BlockStore&) = delete;

    // REQUIRES: one of the sizes. Nearly always the first, a constant then: inlined, that is cheap.
    [[gnu::always_inline]] char* take(size_t size) {
        List& list = lists_[index(size)];
        char* block = list.first != nullptr ? list.pop() : static_cast<char*>(std::malloc(size));
        NEARKEY_CHECK(block != nullptr);
        return block;
    }
    [[gnu::always_inline]] void give(char* block, size_t size) {
        List& list = lists_[index(size)];
        if (kBytesMax >> (kFirstBit + index(size)) <= list.count) {
            std::free(block);
        } else {
            list.push(block);
        }
    }

private:
#ifdef __SANITIZE_ADDRESS__
    static constexpr size_t kBytesMax = 0;  // ASan must see a use of a block given back.
#else
    static constexpr size_t kBytesMax = size_t{256} << 10;
#endif
    static constexpr size_t kFirstBit = std::bit_width(kFirstCapacity) - 1;
    static constexpr size_t kSizes = std::bit_width(kSizeMax) - kFirstBit;

    // Linked through the blocks' own first bytes.
    struct List {
        char* first = nullptr;
        size_t count = 0;

        void push(char* block) {
            std::memcpy(block, &first, sizeof first);
            first = block;
            ++count;
        }
        char* pop() {
            char* block = first;
            std::memcpy(&first, block, sizeof first);
            --count;
            return block;
        }
    };
    static size_t index(size_t size) {
        return std::bit_width(size) - 1 - kFirstBit;
    }

    std::array<List, kSizes> lists_;
};

thread_local BlockStore blocks;

void give_back(char* memory, size_t capacity) {
    if (capacity == kFirstCapacity) {
        blocks.give(memory, kFirstCapacity);
    } else if (capacity > BlockStore::kSizeMax) {
        std::free(memory);
    } else if (capacity > 0) {
        blocks.give(memory, capacity);
    }
}
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
    give_back(memory_, capacity_);
}

void Buffer::append(std::string_view bytes) {
    if (bytes.empty()) return;
    if (capacity_ == 0 && bytes.size() <= kFirstCapacity) {
        memory_ = blocks.take(kFirstCapacity);
        capacity_ = kFirstCapacity;
    } else if (capacity_ - end_ < bytes.size()) {
        make_room(bytes.size());
    }
    std::memcpy(memory_ + end_, bytes.data(), bytes.size());
    end_ += bytes.size();
}

void Buffer::consume(size_t count) {
    NEARKEY_CHECK(count <= size());
    begin_ += count;
    if (begin_ == end_) release();
}

void Buffer::truncate(size_t size) {
    NEARKEY_CHECK(size <= this->size());
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
    const size_t grown = capacity_ < kDoublingMax ? capacity_ * 2 : capacity_ + capacity_ / 4;
    grow(std::max({kFirstCapacity, grown, end_ + count}));
}

void Buffer::grow(size_t capacity) {
    char* memory = nullptr;
    if (capacity <= BlockStore::kSizeMax) {
        capacity = std::bit_ceil(capacity);
        memory = blocks.take(capacity);
    } else if (capacity_ > BlockStore::kSizeMax) {
        // realloc() moves the pages of a large buffer, not its bytes.
        memory_ = static_cast<char*>(std::realloc(memory_, capacity));
        NEARKEY_CHECK(memory_ != nullptr);
        capacity_ = capacity;
        return;
    } else {
        memory = static_cast<char*>(std::malloc(capacity));
        NEARKEY_CHECK(memory != nullptr);
    }
    if (end_ > 0) std::memcpy(memory, memory_, end_);
    give_back(memory_, capacity_);
    memory_ = memory;
    capacity_ = capacity;
}

void Buffer::release() {
    give_back(memory_, capacity_);
    memory_ = nullptr;
    begin_ = end_ = capacity_ = 0;
}

}  // namespace nearkey
