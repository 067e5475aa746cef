// ASCII comparison without case, independent of the locale: as Valkey compares the names of its
// commands and options, and HTTP its headers. Inline: every command is looked up by its name.
#pragma once

#include <algorithm>
#include <string_view>

namespace nearkey {

inline char to_lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}
inline bool equals_ignoring_case(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return to_lower(x) == to_lower(y); });
}

}  // namespace nearkey
