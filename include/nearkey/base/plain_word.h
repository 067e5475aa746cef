// Words that may name something in a line of a log or of CLIENT LIST: validateClientAttr in
// Valkey's networking.c. The one rule: it can't end a field or a line.
#pragma once

#include <algorithm>
#include <string_view>

namespace nearkey {

// Printable ASCII without blanks; an empty one is.
inline bool is_plain_word(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= '!' && c <= '~'; });
}

}  // namespace nearkey
