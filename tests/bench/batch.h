// A pipeline of requests as bytes, and the replies that it must have.
// A BatchShape is made once and shared by all clients; ReplyCursor walks through the replies of
// one batch in pieces of any size, and looks at each reply's type and length.
#pragma once

#include "load_options.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::bench {

inline constexpr size_t kKeyDigits = 12;
inline constexpr size_t kMgetKeys = 20;
// A longer value is not copied into each request, but sent from the one place where it is.
inline constexpr size_t kValueInlineMax = 4096;

// What one reply begins with, and what follows.
struct ReplyPiece {
    std::string prefix;
    size_t skip = 0;       // so many bytes, whatever they are
    bool is_line = false;  // all up to the end of the line
};

struct BatchShape {
    std::string text;                // every request, with zeros for the digits of keys
    std::vector<size_t> key_digits;  // where in the text these are, one for each key
    // Where in the text a value of options.value_bytes and CRLF belong that are not in it.
    std::vector<size_t> value_places;
    std::vector<ReplyPiece> replies;
};

// What a client sends in turn.
std::vector<BatchShape> make_shapes(const LoadOptions& options);

// REQUIRES: digits has room for kKeyDigits bytes; key < 10^12.
void write_key(char* digits, uint64_t key);

class ReplyCursor {
public:
    enum class State { Unfinished, Complete, Wrong };

    void start(const std::vector<ReplyPiece>& pieces) {
        pieces_ = &pieces;
        index_ = 0;
        offset_ = 0;
    }
    State feed(std::string_view bytes);

private:
    // Within the current piece: how many of these bytes it takes; nothing of a wrong reply.
    size_t take(const ReplyPiece& piece, std::string_view bytes, bool& is_over);

    const std::vector<ReplyPiece>* pieces_ = nullptr;
    size_t index_ = 0;
    size_t offset_ = 0;  // into the current piece
};

}  // namespace nearkey::bench
