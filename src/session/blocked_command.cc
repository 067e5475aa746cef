#include "nearkey/session/blocked_command.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace nearkey {

namespace {

enum class TimePlace { First, Last, Block };

struct BlockingRule {
    std::string_view name;
    TimePlace place;
};

constexpr BlockingRule kRules[] = {
    {"blpop", TimePlace::Last},       {"brpop", TimePlace::Last},   {"blmove", TimePlace::Last},
    {"brpoplpush", TimePlace::Last},  {"blmpop", TimePlace::First}, {"bzpopmin", TimePlace::Last},
    {"bzpopmax", TimePlace::Last},    {"bzmpop", TimePlace::First}, {"xread", TimePlace::Block},
    {"xreadgroup", TimePlace::Block},
};

// A longer time is as good as none, and is left to the server.
constexpr double kSecondsMax = 1e9;
constexpr size_t kBytesKept = 1024;

// Finds the place behind BLOCK; the last one counts. 0: there is none.
size_t place_behind_block(const CommandView& command) {
    size_t place = 0;
    for (size_t i = 1; i + 1 < command.size(); ++i) {
        if (equals_ignoring_case(command[i], "STREAMS")) break;
        if (equals_ignoring_case(command[i], "GROUP"))
            i += 2;  // Its names may be any word.
        else if (equals_ignoring_case(command[i], "BLOCK"))
            place = ++i;
    }
    return place;
}

size_t place_of_time(TimePlace place, const CommandView& command) {
    switch (place) {
        case TimePlace::First:
            return 1;
        case TimePlace::Last:
            return command.size() - 1;
        case TimePlace::Block:
            return place_behind_block(command);
    }
    return 0;
}

// In milliseconds; part of one counts as a whole.
std::optional<uint64_t> read_seconds(std::string_view text) {
    double seconds = 0;
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, seconds);
    if (read.ec != std::errc{} || read.ptr != end) return std::nullopt;
    if (!(seconds >= 0 && seconds <= kSecondsMax)) return std::nullopt;
    return static_cast<uint64_t>(std::ceil(seconds * 1000));
}

std::optional<uint64_t> read_ms(std::string_view text) {
    const auto time_ms = parse_integer(text);
    if (!time_ms || *time_ms < 0 || static_cast<double>(*time_ms) > kSecondsMax * 1000) {
        return std::nullopt;
    }
    return static_cast<uint64_t>(*time_ms);
}

}  // namespace

bool BlockedCommand::keep(std::string_view name, const CommandView& command, uint64_t now_ms) {
    forget();
    const auto* const rule = std::find_if(std::begin(kRules), std::end(kRules),
                                          [&](const auto& each) { return each.name == name; });
    if (rule == std::end(kRules) || command.raw().size() > kBytesMax) return false;
    const size_t place = place_of_time(rule->place, command);
    if (place == 0 || place >= command.size()) return false;
    is_in_ms_ = rule->place == TimePlace::Block;
    const auto time_ms = is_in_ms_ ? read_ms(command[place]) : read_seconds(command[place]);
    if (!time_ms) return false;
    deadline_ms_ = *time_ms == 0 ? 0 : now_ms + *time_ms;
    append_array_header(bytes_, command.size());
    for (size_t i = 0; i < command.size(); ++i) {
        if (i == place) timeout_begin_ = bytes_.size();
        append_bulk(bytes_, command[i]);
        if (i == place) timeout_size_ = bytes_.size() - timeout_begin_;
    }
    return true;
}

std::string BlockedCommand::bytes_from(uint64_t now_ms) const {
    if (deadline_ms_ == 0) return bytes_;
    const uint64_t left_ms = deadline_ms_ > now_ms ? deadline_ms_ - now_ms : 1;
    std::string bytes = bytes_.substr(0, timeout_begin_);
    append_bulk(bytes, is_in_ms_ ? fmt::format("{}", left_ms)
                                 : fmt::format("{}.{:03}", left_ms / 1000, left_ms % 1000));
    return bytes.append(bytes_, timeout_begin_ + timeout_size_);
}

void BlockedCommand::forget() {
    bytes_.clear();
    if (bytes_.capacity() > kBytesKept) bytes_.shrink_to_fit();
}

}  // namespace nearkey
