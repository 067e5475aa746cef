// A client's input that was not run yet: a parser and the bytes that it needs again.
// Owned by Session.
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/resp/command_parser.h"

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace nearkey {

class Input {
public:
    explicit Input(int64_t bulk_max) : parser(bulk_max) {}

    CommandParser parser;
    Buffer buffer;
    size_t consumed = 0;  // bytes of the input that the command being executed takes

    // Adds the missing bytes of the argument that is being received. The bytes behind a large
    // argument are then run in place, without a copy. A smaller one is taken together with all that
    // follows, so that whole transactions are found.
    void complete(std::string_view& bytes);
    // True if the buffer begins with the command, and little follows: moving much would cost more
    // than a copy of the command does.
    bool can_give_away(const CommandView& command) const;
    // The buffer with its first `size` bytes; the rest moves to a new one.
    Buffer give_away(size_t size);
    // True if the command that was just run was given away.
    bool take_given() { return std::exchange(is_given_, false); }
    size_t memory_bytes() const { return buffer.capacity() + parser.memory_bytes(); }

private:
    bool is_given_ = false;
};

}  // namespace nearkey
