#include "nearkey/resp/command_parser.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/inline_command.h"
#include "nearkey/resp/number.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

namespace nearkey {

namespace {

// PROTO_INLINE_MAX_SIZE: the longest line.
constexpr size_t kLineMax = size_t{64} << 10;
// More argument slots than this are given back after each command.
constexpr size_t kRangesKept = 32;
// More arguments than these are not read in one go.
constexpr size_t kUsualArguments = 9;
constexpr std::string_view kErrorStart = "ERR Protocol error: ";
// The server's words.
constexpr std::string_view kTooBigInline = "too big inline request";
constexpr std::string_view kUnbalanced = "unbalanced quotes in request";
constexpr std::string_view kTooBigCount = "too big mbulk count string";
constexpr std::string_view kInvalidCount = "invalid multibulk length";
constexpr std::string_view kTooBigLength = "too big bulk count string";
constexpr std::string_view kUnexpected = "expected '$', got '";
constexpr std::string_view kInvalidLength = "invalid bulk length";

// Finds the first `wanted`; like strchr, the server's search ends at a NUL. The line limit bounds
// the search, so that a long half line is not searched again and again.
size_t find_before_nul(std::string_view text, char wanted) {
    const std::string_view line = text.substr(0, kLineMax + 1);
    const size_t found = line.find(wanted);
    if (found == std::string_view::npos) return found;
    return std::memchr(line.data(), '\0', found) == nullptr ? found : std::string_view::npos;
}

void append_length(std::string& out, char type, size_t length) {
    char digits[24];
    const auto [end, error] = std::to_chars(digits, digits + sizeof digits, length);
    out += type;
    out.append(digits, end);
    out += "\r\n";
}

}  // namespace

void encode_command(const CommandView& command, std::string& out) {
    append_length(out, '*', command.size());
    for (size_t i = 0; i < command.size(); ++i) {
        append_length(out, '$', command[i].size());
        out += command[i];
        out += "\r\n";
    }
}

ParseResult CommandParser::next(std::string_view input) {
    const bool may_be_usual = state_ != State::Arguments && !is_blank_ && !after_blanks_;
    if (may_be_usual && parse_usual(input)) return ParseResult::Command;
    input_ = input;
    if (state_ == State::Done) {
        after_blanks_ = std::exchange(is_blank_, false);
        restart();
    }
    if (state_ == State::Start) {
        if (input_.empty()) return ParseResult::Incomplete;
        if (input_[0] != '*' || after_blanks_) return parse_inline();
        const ParseResult header = parse_header();
        if (header != ParseResult::Command) return header;
        state_ = State::Arguments;
    }
    return parse_arguments();
}

void CommandParser::restart() {
    state_ = State::Start;
    position_ = 0;
    arguments_left_ = 0;
    bulk_length_ = -1;
    canonical_ = true;
    count_ = 0;
    if (ranges_.size() > kRangesKept) std::vector<CommandView::Range>().swap(ranges_);
}

bool CommandParser::parse_usual(std::string_view input) {
    constexpr size_t kHeader = 4;    // "*1\r\n"
    constexpr ptrdiff_t kLeast = 6;  // "$0\r\n\r\n", or "$100\r\n"
    constexpr int kMoreDigits = 2;
    if (input.size() < kHeader || input[0] != '*') return false;
    const char* at = input.data();
    const char* const end = at + input.size();
    const auto digit = [](char c) { return static_cast<unsigned char>(c - '0'); };
    const size_t count = digit(at[1]);
    if (count == 0 || count > kUsualArguments || at[2] != '\r' || at[3] != '\n') return false;
    if (ranges_.size() < count) ranges_.resize(count);
    if (ranges_.size() > kRangesKept) return false;
    at += kHeader;
    for (CommandView::Range *range = ranges_.data(), *last = range + count; range != last;
         ++range) {
        if (end - at < kLeast || at[0] != '$' || digit(at[1]) > 9) return false;
        size_t length = digit(at[1]);
        at += 2;
        for (int more = kMoreDigits; length != 0 && more > 0 && digit(*at) <= 9; --more)
            length = length * 10 + digit(*at++);
        if (at[0] != '\r' || at[1] != '\n') return false;
        at += 2;
        if (static_cast<size_t>(end - at) < length + 2) return false;
        if (at[length] != '\r' || at[length + 1] != '\n') return false;
        *range = {static_cast<size_t>(at - input.data()), length};
        at += length + 2;
        if (static_cast<int64_t>(length) > bulk_max_) return false;
    }
    count_ = static_cast<uint32_t>(count);
    canonical_ = true;
    input_ = input;
    position_ = static_cast<size_t>(at - input.data());
    finish(input.data());
    return true;
}

void CommandParser::add_range(CommandView::Range range) {
    if (count_ == ranges_.size()) ranges_.emplace_back();
    ranges_[count_++] = range;
}

ParseResult CommandParser::parse_inline() {
    const size_t newline = find_before_nul(input_, '\n');
    if (newline == std::string_view::npos) {
        return input_.size() > kLineMax ? invalid(kTooBigInline) : ParseResult::Incomplete;
    }
    std::string_view line = input_.substr(0, newline);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const auto words = split_inline(line);
    if (!words) return invalid(kUnbalanced);
    position_ = newline + 1;
    is_blank_ = words->empty() && !line.empty();
    canonical_ = false;
    inline_arguments_.clear();
    for (const std::string& word : *words) {
        add_range({inline_arguments_.size(), word.size()});
        inline_arguments_ += word;
    }
    return finish(inline_arguments_.data());
}

// Command: the header is read and arguments follow.
ParseResult CommandParser::parse_header() {
    arguments_left_ = read_short_length('*');
    if (arguments_left_ > 0) return ParseResult::Command;
    position_ = 0;
    std::string_view line;
    const ParseResult read = read_line(kTooBigCount, line);
    if (read != ParseResult::Command) return read;
    const auto count = parse_integer(line.substr(1));
    if (!count || *count > std::numeric_limits<int32_t>::max()) {
        return invalid(kInvalidCount);
    }
    if (*count <= 0) {
        state_ = State::Done;
        return ParseResult::Empty;
    }
    arguments_left_ = *count;
    return ParseResult::Command;
}

ParseResult CommandParser::parse_arguments() {
    while (arguments_left_ > 0) {
        if (bulk_length_ < 0) {
            const ParseResult read = parse_bulk_length();
            if (read != ParseResult::Command) return read;
        }
        const auto length = static_cast<size_t>(bulk_length_);
        if (input_.size() - position_ < length + 2) return ParseResult::Incomplete;
        // Valkey skips two bytes here, whatever they are.
        canonical_ &= input_.substr(position_ + length, 2) == "\r\n";
        add_range({position_, length});
        position_ += length + 2;
        bulk_length_ = -1;
        --arguments_left_;
    }
    return finish(input_.data());
}

ParseResult CommandParser::parse_bulk_length() {
    const size_t start = position_;
    bulk_length_ = read_short_length('$');
    if (bulk_length_ >= 0 && bulk_length_ <= bulk_max_) return ParseResult::Command;
    position_ = start;
    bulk_length_ = -1;
    std::string_view line;
    const ParseResult read = read_line(kTooBigLength, line);
    if (read != ParseResult::Command) return read;
    if (input_[start] != '$') {
        // A line end inside an error text becomes a blank, as in addReplyErrorFormat.
        const char got = input_[start] == '\r' ? ' ' : input_[start];
        return invalid(fmt::format("{}{}'", kUnexpected, got));
    }
    const auto length = parse_integer(line.substr(1));
    if (!length || *length < 0 || *length > bulk_max_) return invalid(kInvalidLength);
    bulk_length_ = *length;
    return ParseResult::Command;
}

int64_t CommandParser::read_short_length(char type) {
    constexpr size_t kDigitsMax = 5;
    const std::string_view text = input_.substr(position_, 1 + kDigitsMax + 2);
    if (text.size() < 4 || text[0] != type) return -1;
    int64_t value = text[1] - '0';
    if (value < 0 || value > 9) return -1;
    size_t end = 2;
    for (; value != 0 && end + 2 < text.size() && text[end] >= '0' && text[end] <= '9'; ++end)
        value = value * 10 + (text[end] - '0');
    if (text[end] != '\r' || text[end + 1] != '\n') return -1;
    position_ += end + 2;
    return value;
}

ParseResult CommandParser::read_line(std::string_view too_big, std::string_view& line) {
    const std::string_view rest = input_.substr(position_);
    const size_t end = find_before_nul(rest, '\r');
    if (end == std::string_view::npos) {
        return rest.size() > kLineMax ? invalid(too_big) : ParseResult::Incomplete;
    }
    if (end + 2 > rest.size()) return ParseResult::Incomplete;
    canonical_ &= rest[end + 1] == '\n';
    line = rest.substr(0, end);
    position_ += end + 2;
    return ParseResult::Command;
}

ParseResult CommandParser::finish(const char* base) {
    state_ = State::Done;
    if (count_ == 0) return ParseResult::Empty;
    command_.raw_ = input_.substr(0, position_);
    command_.base_ = base;
    command_.arguments_ = ranges_.data();
    command_.size_ = count_;
    command_.canonical_ = canonical_;
    return ParseResult::Command;
}

ParseResult CommandParser::invalid(std::string_view what) {
    error_ = kErrorStart;
    error_ += what;
    return ParseResult::Invalid;
}

std::string CommandParser::counterpart() const {
    const std::string_view what = std::string_view(error_).substr(kErrorStart.size());
    // A line that never ends.
    const std::string endless(kLineMax + 1, 'x');
    if (what == kTooBigInline) return endless;
    if (what == kTooBigCount) return '*' + endless;
    if (what == kTooBigLength) return "*1\r\n$" + endless;
    if (what == kUnbalanced) return "\"\r\n";
    if (what == kInvalidCount) return "*x\r\n";
    if (what.starts_with(kUnexpected)) return fmt::format("*1\r\n{}\r\n", what[kUnexpected.size()]);
    NEARKEY_CHECK(what == kInvalidLength);
    return "*1\r\n$x\r\n";
}

}  // namespace nearkey
