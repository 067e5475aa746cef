// What the fuzz targets share: memory in which a read past the end is caught, the ways to cut an
// input into pieces, and a reader that turns bytes into choices.
// A target is a file fuzz_<name>.cc with LLVMFuzzerTestOneInput(); it ends by NEARKEY_CHECK where a
// property does not hold. The same bytes always do the same: nothing here depends on time or
// chance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::fuzz {

inline std::string_view as_text(const uint8_t* data, size_t size) {
    return size == 0 ? std::string_view()
                     : std::string_view(reinterpret_cast<const char*>(data), size);
}

// A copy with nothing behind it: AddressSanitizer sees a read past its end, and a view that
// outlived it.
class ExactCopy {
public:
    explicit ExactCopy(std::string_view bytes)
        : memory_(new char[bytes.size()]), size_(bytes.size()) {
        if (size_ > 0) std::memcpy(memory_.get(), bytes.data(), size_);
    }
    std::string_view view() const { return {memory_.get(), size_}; }

private:
    std::unique_ptr<char[]> memory_;
    size_t size_;
};

// The ends of the pieces of an input, ascending; the last is the input's own end.
using Cuts = std::vector<size_t>;

// The ways in which an input is cut: every byte, every place once (or some, of a long input), and
// some at many places. They follow from the bytes alone.
inline std::vector<Cuts> ways_to_cut(std::string_view bytes) {
    constexpr size_t kEveryByteMax = 128;
    constexpr size_t kEveryPlaceMax = 16;
    const size_t size = bytes.size();
    uint64_t state = 0xcbf29ce484222325;
    for (const char c : bytes)
        state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    const auto next = [&state](size_t bound) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        return static_cast<size_t>((state >> 33U) % bound);
    };
    std::vector<Cuts> ways;
    if (size <= kEveryByteMax) {
        Cuts& each = ways.emplace_back();
        for (size_t end = 1; end <= size; ++end)
            each.push_back(end);
    }
    const size_t places = size <= kEveryPlaceMax ? size : 4;
    for (size_t i = 0; i < places; ++i)
        ways.push_back({places == size ? i : next(size), size});
    for (const size_t piece_max : {size_t{3}, size_t{17}, size_t{200}}) {
        if (size > 100 * piece_max) continue;  // All pieces together would take quadratic time.
        Cuts& some = ways.emplace_back();
        for (size_t end = next(piece_max); end < size; end += 1 + next(piece_max))
            some.push_back(end);
        some.push_back(size);
    }
    return ways;
}

// Takes choices from the front of the bytes; when they are used up, every choice is 0.
class Choices {
public:
    explicit Choices(std::string_view bytes) : rest_(bytes) {}

    size_t below(size_t bound) {
        if (rest_.empty()) return 0;
        const auto byte = static_cast<unsigned char>(rest_[0]);
        rest_.remove_prefix(1);
        return byte % bound;
    }
    // Up to `size_max` bytes as they are.
    std::string text(size_t size_max) {
        const std::string_view taken = rest_.substr(0, below(size_max + 1));
        rest_.remove_prefix(taken.size());
        return std::string(taken);
    }
    bool is_used_up() const { return rest_.empty(); }
    std::string_view rest() const { return rest_; }

private:
    std::string_view rest_;
};

}  // namespace nearkey::fuzz
