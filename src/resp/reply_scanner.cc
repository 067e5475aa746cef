#include "nearkey/resp/reply_scanner.h"

#include "nearkey/resp/number.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace nearkey {

namespace {

enum class LineKind { Unknown, Text, Length, Checked };

// Text is passed on whatever it says. Length announces bytes or values. Checked lines are short,
// and only one spelling of them is right.
LineKind kind_of(char type) {
    switch (type) {
        case '+':
        case '-':
        case ',':
        case '(':
            return LineKind::Text;
        case ':':
        case '_':
        case '#':
            return LineKind::Checked;
        case '$':
        case '=':
        case '!':
        case '*':
        case '%':
        case '~':
        case '>':
        case '|':
            return LineKind::Length;
        default:
            return LineKind::Unknown;
    }
}

bool is_right(char type, std::string_view content) {
    switch (type) {
        case ':':
            return parse_integer(content).has_value();
        case '_':
            return content.empty();
        default:
            return content == "t" || content == "f";
    }
}

// More values than any reply can have; keeps the sum of counts from wrapping around.
constexpr uint64_t kMissingMax = uint64_t{1} << 62;
constexpr int64_t kCountMax = int64_t{1} << 40;

}  // namespace

ScanResult ReplyScanner::scan(std::string_view bytes, size_t& taken) {
    taken = 0;
    if (missing_ == 0) {
        if (bytes.empty()) return ScanResult::Incomplete;
        missing_ = 1;
        type_ = bytes[0];
        has_text_ = false;
    }
    while (missing_ > 0) {
        const std::string_view rest = bytes.substr(taken);
        if (rest.empty()) return ScanResult::Incomplete;
        size_t used = 0;
        const bool is_right = payload_left_ > 0 ? skip_payload(rest, used) : take_line(rest, used);
        if (!is_right) return ScanResult::Malformed;
        taken += used;
    }
    return ScanResult::Complete;
}

// The content of a bulk and the "\r\n" behind it.
bool ReplyScanner::skip_payload(std::string_view rest, size_t& used) {
    const uint64_t before = payload_left_;
    used = std::min<uint64_t>(before, rest.size());
    payload_left_ -= used;
    if (before >= 2 && payload_left_ < 2 && rest[before - 2] != '\r') return false;
    if (payload_left_ > 0) return true;
    --missing_;
    return rest[before - 1] == '\n';
}

// Text ends with "\r\n"; either of them alone is part of it (an error in a script may have some).
size_t ReplyScanner::take_text(std::string_view rest) {
    has_text_ = true;
    const bool is_cut = ends_with_cr_ && rest[0] == '\n';
    const size_t end = is_cut ? 0 : rest.find("\r\n");
    in_text_ = end == std::string_view::npos;
    ends_with_cr_ = in_text_ && rest.back() == '\r';
    if (in_text_) return rest.size();
    --missing_;
    return is_cut ? 1 : end + 2;
}

// A line or a piece of one. Text may be long and is not kept; other lines are short and are read as
// a whole.
bool ReplyScanner::take_line(std::string_view rest, size_t& used) {
    if (in_text_ || (half_line_size_ == 0 && kind_of(rest[0]) == LineKind::Text)) {
        used = take_text(rest);
        return true;
    }
    const auto* newline = static_cast<const char*>(std::memchr(rest.data(), '\n', rest.size()));
    used = newline == nullptr ? rest.size() : static_cast<size_t>(newline - rest.data()) + 1;
    const std::string_view piece = rest.substr(0, used);
    if (newline != nullptr && half_line_size_ == 0) return read_line(piece);
    if (half_line_size_ + used > kLineMax) return false;
    std::memcpy(half_line_ + half_line_size_, piece.data(), used);
    half_line_size_ += used;
    if (newline == nullptr) return kind_of(half_line_[0]) != LineKind::Unknown;
    return read_line({half_line_, std::exchange(half_line_size_, 0)});
}

// `line` ends with '\n'.
bool ReplyScanner::read_line(std::string_view line) {
    const char type = line[0];
    const LineKind kind = kind_of(type);
    if (kind == LineKind::Unknown || !line.ends_with("\r\n")) return false;
    const std::string_view content = line.substr(1, line.size() - 3);
    if (kind == LineKind::Checked) {
        --missing_;
        return is_right(type, content);
    }
    const auto count = parse_integer(content);
    if (!count || *count < -1 || *count > kCountMax) return false;
    if (*count == -1) {
        --missing_;
        return type == '$' || type == '*';
    }
    const auto length = static_cast<uint64_t>(*count);
    switch (type) {
        case '$':
        case '=':
        case '!':
            payload_left_ = length + 2;
            break;
        case '|':
            missing_ += 2 * length;
            break;
        case '%':
            missing_ += 2 * length - 1;
            break;
        default:
            missing_ += length - 1;
            break;
    }
    return missing_ < kMissingMax;
}

}  // namespace nearkey
