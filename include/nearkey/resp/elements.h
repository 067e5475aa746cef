// Walks over the elements of a reply that is an array, without making a tree of it. The reply is
// whole and outlives this; views into it are returned.
#pragma once

#include "nearkey/resp/reply_scanner.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace nearkey {

// The number in the first line of a reply of this type. Nothing: it is of another, or has none.
std::optional<int64_t> number_of(std::string_view reply, char type);
// The text of a bulk string; empty: it is none, or empty.
std::string_view bulk_text(std::string_view reply);

class Elements {
public:
    explicit Elements(std::string_view reply);
    bool is_array() const { return is_array_; }
    uint64_t count() const { return count_; }
    // All bytes of those that were not taken yet.
    std::string_view rest() const { return rest_; }
    // Empty: there is none any more.
    std::string_view next();

private:
    bool is_array_ = false;
    uint64_t count_ = 0;
    std::string_view rest_;
    ReplyScanner scanner_;
};

}  // namespace nearkey
