#include "batch.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace nearkey::bench {
namespace {

constexpr size_t kMixedPeriod = 10;

std::string bulk_header(size_t bytes) {
    return "$" + std::to_string(bytes) + "\r\n";
}

class ShapeBuilder {
public:
    explicit ShapeBuilder(const LoadOptions& options) : options_(options) {}

    void get() {
        shape_.text += "*2\r\n$3\r\nGET\r\n";
        key();
        shape_.replies.push_back(value_reply(""));
    }
    void set() {
        shape_.text += "*3\r\n$3\r\nSET\r\n";
        key();
        shape_.text += bulk_header(options_.value_bytes);
        if (options_.value_bytes <= kValueInlineMax) {
            shape_.text += std::string(options_.value_bytes, 'x') + "\r\n";
        } else {
            shape_.value_places.push_back(shape_.text.size());
        }
        shape_.replies.push_back({"+OK\r\n"});
    }
    void mget() {
        shape_.text += "*" + std::to_string(kMgetKeys + 1) + "\r\n$4\r\nMGET\r\n";
        for (size_t i = 0; i < kMgetKeys; ++i) {
            key();
            shape_.replies.push_back(
                value_reply(i == 0 ? "*" + std::to_string(kMgetKeys) + "\r\n" : ""));
        }
    }
    void incr() {
        shape_.text += "*2\r\n$4\r\nINCR\r\n";
        key();
        shape_.replies.push_back({":", 0, true});
    }
    BatchShape take() { return std::exchange(shape_, {}); }

private:
    void key() {
        shape_.text += bulk_header(options_.prefix.size() + kKeyDigits) + options_.prefix;
        shape_.key_digits.push_back(shape_.text.size());
        shape_.text += std::string(kKeyDigits, '0') + "\r\n";
    }
    ReplyPiece value_reply(const std::string& before) const {
        return {before + bulk_header(options_.value_bytes), options_.value_bytes + 2};
    }

    const LoadOptions& options_;
    BatchShape shape_;
};

}  // namespace

std::vector<BatchShape> make_shapes(const LoadOptions& options) {
    ShapeBuilder builder(options);
    const auto batch_of = [&](void (ShapeBuilder::*request)()) {
        for (size_t i = 0; i < options.pipeline; ++i)
            (builder.*request)();
        return builder.take();
    };
    switch (options.command) {
        case LoadCommand::Get:
            return {batch_of(&ShapeBuilder::get)};
        case LoadCommand::Set:
            return {batch_of(&ShapeBuilder::set)};
        case LoadCommand::Mget:
            return {batch_of(&ShapeBuilder::mget)};
        case LoadCommand::Incr:
            return {batch_of(&ShapeBuilder::incr)};
        case LoadCommand::Alternate:
            return {batch_of(&ShapeBuilder::set), batch_of(&ShapeBuilder::get)};
        case LoadCommand::Mixed:
            break;
    }
    std::vector<BatchShape> shapes;
    size_t number = 0;
    do {
        for (size_t i = 0; i < options.pipeline; ++i) {
            if (++number % kMixedPeriod == 0) {
                builder.set();
            } else {
                builder.get();
            }
        }
        shapes.push_back(builder.take());
    } while (number % kMixedPeriod != 0);
    return shapes;
}

void write_key(char* digits, uint64_t key) {
    // Four digits at a time: three divisions in place of twelve.
    static const auto kFours = [] {
        std::array<std::array<char, 4>, 10'000> fours{};
        for (size_t number = 0; number < fours.size(); ++number) {
            size_t left = number;
            for (size_t i = 4; i-- > 0; left /= 10)
                fours[number][i] = static_cast<char>('0' + left % 10);
        }
        return fours;
    }();
    for (size_t i = kKeyDigits / 4; i-- > 0; key /= kFours.size())
        std::memcpy(digits + i * 4, kFours[key % kFours.size()].data(), 4);
}

ReplyCursor::State ReplyCursor::feed(std::string_view bytes) {
    while (!bytes.empty()) {
        if (index_ == pieces_->size()) return State::Wrong;  // more than was asked for
        bool is_over = false;
        const size_t taken = take((*pieces_)[index_], bytes, is_over);
        if (taken == 0) return State::Wrong;
        bytes.remove_prefix(taken);
        offset_ = is_over ? 0 : offset_ + taken;
        index_ += is_over ? 1 : 0;
    }
    return index_ == pieces_->size() ? State::Complete : State::Unfinished;
}

size_t ReplyCursor::take(const ReplyPiece& piece, std::string_view bytes, bool& is_over) {
    size_t taken = 0;
    if (offset_ < piece.prefix.size()) {
        taken = std::min(piece.prefix.size() - offset_, bytes.size());
        if (std::memcmp(piece.prefix.data() + offset_, bytes.data(), taken) != 0) return 0;
    }
    const size_t rest = bytes.size() - taken;
    if (piece.is_line) {
        const size_t end = bytes.find('\n', taken);
        is_over = end != std::string_view::npos;
        return is_over ? end + 1 : bytes.size();
    }
    const size_t left = piece.prefix.size() + piece.skip - offset_ - taken;
    is_over = left <= rest;
    return taken + std::min(left, rest);
}

}  // namespace nearkey::bench
