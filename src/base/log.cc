#include "nearkey/base/log.h"

#include "nearkey/base/wall_clock.h"

#include <nlohmann/json.hpp>

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <list>
#include <string>

namespace nearkey {

namespace {

constexpr std::string_view kLevelNames[] = {"debug", "info", "warning", "error"};
constexpr std::string_view kPriorities[] = {"<7>", "<6>", "<4>", "<3>"};

uint64_t monotonic_ms() {
    using std::chrono::steady_clock;
    const auto now = steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// The descriptor may be shared with others, so it is asked with poll, not made non-blocking. A line
// is shorter than PIPE_BUF: a pipe that polls writable takes it whole.
bool takes_a_line(int fd) {
    pollfd watched{fd, POLLOUT, 0};
    return poll(&watched, 1, 0) == 1 && (watched.revents & POLLOUT) != 0;
}

constexpr size_t kLineMax = 4096;

std::string json_line(LogLevel level, std::string_view event, std::span<const LogField> fields) {
    nlohmann::ordered_json object;
    object["time"] = utc_text(wall_clock_ms());
    object["level"] = to_text(level);
    object["event"] = event;
    for (const LogField& field : fields) {
        std::visit([&](const auto& value) { object[std::string(field.name)] = value; },
                   field.value);
    }
    // Bytes that are not UTF-8 are replaced: dump() would throw otherwise.
    return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// A value that is no plain word is written as JSON: on one line, and without escape sequences that
// a terminal would obey.
void append_value(std::string& line, std::string_view value) {
    const bool is_plain = !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
        return c > ' ' && c <= '~' && c != '"' && c != '=' && c != '\\';
    });
    if (is_plain) {
        line += value;
        return;
    }
    const nlohmann::json text = value;
    line += text.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

std::string text_line(LogLevel level, std::string_view event, std::span<const LogField> fields) {
    std::string line = utc_text(wall_clock_ms());
    line.append(" ").append(to_text(level)).append(" ").append(event);
    for (const LogField& field : fields) {
        line.append(" ").append(field.name).append("=");
        if (const auto* const number = std::get_if<int64_t>(&field.value)) {
            line += std::to_string(*number);
        } else {
            append_value(line, std::get<std::string_view>(field.value));
        }
    }
    return line;
}

std::string_view text_of(const LogField& field) {
    const auto* const text = std::get_if<std::string_view>(&field.value);
    return text == nullptr ? std::string_view{} : *text;
}

// Of a line that is too long by `excess` bytes, the more of its escapes the less at a time. Empty:
// there is nothing to leave out.
std::string shortened(std::string_view text, size_t excess) {
    constexpr std::string_view kCut = "...";
    constexpr size_t kShort = 16;
    if (text.size() <= kShort) return {};
    size_t kept = text.size() - std::min(excess + kCut.size(), text.size() / 2);
    // At the beginning of a character of UTF-8.
    while (kept > 0 && (static_cast<unsigned char>(text[kept]) & 0xc0) == 0x80)
        --kept;
    return std::string(text.substr(0, kept)).append(kCut);
}

}  // namespace

Log::Log(int fd, LogLevel level, Metrics& metrics)
    : fd_(fd), level_(level), metrics_(metrics), now_ms_(monotonic_ms) {
}

Log::~Log() {
    for (const Repeats& repeats : repeats_)
        say(repeats);
}

void Log::set_format(LogFormat format, LogTarget target) {
    const std::lock_guard lock(mutex_);
    format_ = format;
    target_ = target;
}

void Log::debug(std::string_view event, std::initializer_list<LogField> fields) {
    log(LogLevel::Debug, event, fields);
}
void Log::info(std::string_view event, std::initializer_list<LogField> fields) {
    log(LogLevel::Info, event, fields);
}
void Log::warning(std::string_view event, std::initializer_list<LogField> fields) {
    log(LogLevel::Warning, event, fields);
}
void Log::error(std::string_view event, std::initializer_list<LogField> fields) {
    log(LogLevel::Error, event, fields);
}

void Log::log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
    if (level < this->level()) return;
    const std::lock_guard lock(mutex_);
    end_periods();
    if (may_be_written(level, event)) {
        write(level, event, fields);
    } else {
        ++metrics_.log_repeats_total;
    }
}

void Log::say_repeats() {
    const std::lock_guard lock(mutex_);
    end_periods();
}

void Log::end_periods() {
    const uint64_t now = now_ms_();
    while (!repeats_.empty() && now >= repeats_.front().since_ms + kPeriodMs) {
        say(repeats_.front());
        repeats_.erase(repeats_.begin());
    }
}

bool Log::may_be_written(LogLevel level, std::string_view event) {
    const auto found = std::find_if(repeats_.begin(), repeats_.end(), [&](const Repeats& repeats) {
        return repeats.level == level && repeats.event == event;
    });
    if (found != repeats_.end()) return ++found->count <= kBurst;
    if (repeats_.size() == kRepeatsMax) {
        say(repeats_.front());
        repeats_.erase(repeats_.begin());
    }
    repeats_.push_back({std::string(event), level, now_ms_(), 1});
    return true;
}

void Log::say(const Repeats& repeats) {
    if (repeats.count <= kBurst) return;
    const auto seconds = static_cast<int64_t>((now_ms_() - repeats.since_ms) / 1000);
    write(repeats.level, repeats.event,
          {{"more", static_cast<int64_t>(repeats.count - kBurst)}, {"seconds", seconds}});
}

std::string Log::line_of(LogLevel level, std::string_view event,
                         std::span<const LogField> fields) const {
    std::string line;
    if (target_ == LogTarget::Journal) line = kPriorities[static_cast<size_t>(level)];
    line += format_ == LogFormat::Json ? json_line(level, event, fields)
                                       : text_line(level, event, fields);
    line += '\n';
    return line;
}

void Log::write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
    std::string line = line_of(level, event, {fields.begin(), fields.size()});
    std::vector<LogField> shorter;
    std::list<std::string> texts;  // that `shorter` refers to
    while (line.size() > kLineMax) {
        if (shorter.empty()) shorter = fields;
        LogField& longest = *std::max_element(
            shorter.begin(), shorter.end(), [](const LogField& one, const LogField& other) {
                return text_of(one).size() < text_of(other).size();
            });
        texts.push_back(shortened(text_of(longest), line.size() - kLineMax));
        if (texts.back().empty()) break;
        longest.value = std::string_view(texts.back());
        line = line_of(level, event, shorter);
    }
    if (line.size() > kLineMax || !takes_a_line(fd_) ||
        ::write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
        ++metrics_.log_dropped_total;
    }
}

bool parse_log_level(std::string_view name, LogLevel& level) {
    const auto* const found = std::find(std::begin(kLevelNames), std::end(kLevelNames), name);
    if (found == std::end(kLevelNames)) return false;
    level = static_cast<LogLevel>(found - std::begin(kLevelNames));
    return true;
}

std::string_view to_text(LogLevel level) {
    return kLevelNames[static_cast<size_t>(level)];
}

LogTarget log_target(int fd, std::string_view journal_stream) {
    struct stat found {};
    if (fstat(fd, &found) != 0) return LogTarget::Plain;
    const std::string here = std::to_string(found.st_dev) + ":" + std::to_string(found.st_ino);
    return here == journal_stream ? LogTarget::Journal : LogTarget::Plain;
}

}  // namespace nearkey
