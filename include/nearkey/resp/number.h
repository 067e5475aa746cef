// Integers as Valkey reads them on the wire: decimal, no sign but '-', no leading zeros, no blanks.
// One spelling for each number, so that a length has the same meaning for us and for the server.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nearkey {

// Any number of 64 bits; parse_integer() is the way in.
std::optional<int64_t> parse_long_integer(std::string_view text);

// Inline for what lengths mostly are: one or two digits.
inline std::optional<int64_t> parse_integer(std::string_view text) {
    const auto digit = [&](size_t i) { return static_cast<unsigned>(text[i] - '0'); };
    if (text.size() == 1 && digit(0) <= 9) return digit(0);
    if (text.size() == 2 && digit(0) - 1 <= 8 && digit(1) <= 9) return digit(0) * 10 + digit(1);
    return parse_long_integer(text);
}

// ASCII only, as the server compares its command names and options. Inline: every command is looked
// up by its name.
inline char to_lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}
inline bool equals_ignoring_case(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return to_lower(x) == to_lower(y); });
}

}  // namespace nearkey
