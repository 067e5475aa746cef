// A text that is one decimal number and nothing else: no blanks, no '+', '-' only where T has it.
// For what people and systems write; lengths on the wire are stricter (resp/number.h).
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

namespace nearkey {

// Nothing if it is not, or if T does not hold it.
template <class T>
std::optional<T> parse_number(std::string_view text) {
    T number{};
    const char* const end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, number);
    if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
    return number;
}

}  // namespace nearkey
