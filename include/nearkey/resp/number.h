// Integers as Valkey reads them on the wire: decimal, no sign but '-', no leading zeros, no blanks.
// One spelling for each number, so that a length has the same meaning for us and for the server.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace nearkey {

// Any number of 64 bits; parse_integer() is the way in.
std::optional<int64_t> parse_long_integer(std::string_view text);

// Inline for one or two digits: most lengths.
inline std::optional<int64_t> parse_integer(std::string_view text) {
    const auto digit = [&](size_t i) { return static_cast<unsigned>(text[i] - '0'); };
    if (text.size() == 1 && digit(0) <= 9) return digit(0);
    if (text.size() == 2 && digit(0) - 1 <= 8 && digit(1) <= 9) return digit(0) * 10 + digit(1);
    return parse_long_integer(text);
}

}  // namespace nearkey
