#include "nearkey/resp/elements.h"

#include "nearkey/resp/number.h"

#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kEnd = "\r\n";
}  // namespace

std::optional<int64_t> number_of(std::string_view reply, char type) {
    const size_t end = reply.find(kEnd);
    if (!reply.starts_with(type) || end == std::string_view::npos) return std::nullopt;
    return parse_integer(reply.substr(1, end - 1));
}

std::string_view bulk_text(std::string_view reply) {
    const auto size = number_of(reply, '$');
    if (!size || *size < 0) return {};
    return reply.substr(reply.find(kEnd) + kEnd.size(), static_cast<size_t>(*size));
}

Elements::Elements(std::string_view reply) {
    const auto count = number_of(reply, '*');
    is_array_ = count && *count >= 0;
    if (!is_array_) return;
    count_ = static_cast<uint64_t>(*count);
    rest_ = reply.substr(reply.find(kEnd) + kEnd.size());
}

std::string_view Elements::next() {
    size_t taken = 0;
    if (rest_.empty() || scanner_.scan(rest_, taken) != ScanResult::Complete) return {};
    return std::exchange(rest_, rest_.substr(taken)).substr(0, taken);
}

}  // namespace nearkey
