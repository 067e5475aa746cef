#include "nearkey/resp/number.h"

#include <limits>

namespace nearkey {

std::optional<int64_t> parse_long_integer(std::string_view text) {
    if (text == "0") return 0;
    const bool negative = text.starts_with('-');
    if (negative) text.remove_prefix(1);
    if (text.empty() || text.size() > 19 || text[0] < '1' || text[0] > '9') return std::nullopt;
    uint64_t value = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        value = value * 10 + static_cast<uint64_t>(c - '0');  // 19 digits can't overflow 64 bits.
    }
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (value > kMax + (negative ? 1 : 0)) return std::nullopt;
    return static_cast<int64_t>(negative ? ~value + 1 : value);
}

}  // namespace nearkey
