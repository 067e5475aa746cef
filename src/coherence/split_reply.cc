#include "nearkey/coherence/split_reply.h"

#include "nearkey/resp/number.h"

#include <optional>
#include <utility>

namespace nearkey {

namespace {

constexpr std::string_view kEnd = "\r\n";

// The number behind the type byte at the beginning.
std::optional<int64_t> leading_number(std::string_view reply) {
    const size_t end = reply.find(kEnd);
    if (end == std::string_view::npos || end == 0) return std::nullopt;
    return parse_integer(reply.substr(1, end - 1));
}

// The size of a string or a null in an array; 0: it is something else.
size_t size_of_value(std::string_view reply) {
    const size_t line = reply.find(kEnd);
    if (line == std::string_view::npos) return 0;
    if (reply[0] == '_') return line + kEnd.size();
    const auto length = leading_number(reply);
    if (reply[0] != '$' || !length || *length < -1) return 0;
    const size_t content = *length < 0 ? 0 : static_cast<size_t>(*length) + kEnd.size();
    const size_t size = line + kEnd.size() + content;
    return size <= reply.size() ? size : 0;
}

}  // namespace

std::string_view SplitReply::part(CacheSplit split, size_t index, size_t count) {
    return split == CacheSplit::Values ? value(index, count) : existence(count);
}

std::string_view SplitReply::value(size_t index, size_t count) {
    if (!std::exchange(is_open_, true)) {
        const bool fits = rest_.starts_with('*') &&
                          leading_number(rest_) == std::optional(static_cast<int64_t>(count));
        rest_ = fits ? rest_.substr(rest_.find(kEnd) + kEnd.size()) : std::string_view{};
    }
    std::string_view value;
    for (; next_ <= index && !rest_.empty(); ++next_) {
        value = rest_.substr(0, size_of_value(rest_));
        rest_ = value.empty() ? std::string_view{} : rest_.substr(value.size());
    }
    return value;
}

// If some exist, but not all, nobody knows which.
std::string_view SplitReply::existence(size_t count) const {
    const auto found = rest_.starts_with(':') ? leading_number(rest_) : std::nullopt;
    if (found == std::optional(static_cast<int64_t>(count))) return ":1\r\n";
    return found == std::optional<int64_t>(0) ? ":0\r\n" : std::string_view{};
}

}  // namespace nearkey
