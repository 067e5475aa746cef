// One line for each thing that happened: time, level, event, fields; JSON, or text for people.
// State changes, not requests; never a user's key or value. A line about a client carries
// session=N, and request=N if it is about one of its commands. A line that the descriptor can't
// take at once is dropped and counted: logging neither blocks nor fails. Any thread may log. The
// one rule: callers need not limit how often they log. An event that comes more than kBurst times
// in kPeriodMs is counted, and said once with the number: more=412.
#pragma once

#include "nearkey/base/metrics.h"

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nearkey {

enum class LogLevel { Debug, Info, Warning, Error };
enum class LogFormat { Json, Text };
// Journal: each line begins with its priority, "<4>", which journald takes off (sd-daemon(3)).
enum class LogTarget { Plain, Journal };

struct LogField {
    std::string_view name;
    std::variant<std::string_view, int64_t> value;
};

class Log {
public:
    static constexpr uint32_t kBurst = 20;
    static constexpr uint64_t kPeriodMs = 60'000;
    // The most events that are followed; one more takes the place of the oldest.
    static constexpr size_t kRepeatsMax = 64;

    using Clock = uint64_t (*)();  // milliseconds, monotonic

    // Writes to `fd`, which stays the caller's and outlives the log.
    Log(int fd, LogLevel level, Metrics& metrics);
    // Says how many more there were.
    ~Log();
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    void set_level(LogLevel level) { level_ = level; }
    LogLevel level() const { return level_.load(std::memory_order_relaxed); }
    void set_format(LogFormat format, LogTarget target);
    void set_clock(Clock now_ms) { now_ms_ = now_ms; }

    void debug(std::string_view event, std::initializer_list<LogField> fields);
    void info(std::string_view event, std::initializer_list<LogField> fields);
    void warning(std::string_view event, std::initializer_list<LogField> fields);
    void error(std::string_view event, std::initializer_list<LogField> fields);

    // Says how many more there were of each event whose period is over. Each line does so too; a
    // timer calls it in case no line comes.
    void say_repeats();

private:
    // An event in its period.
    struct Repeats {
        std::string event;
        LogLevel level;
        uint64_t since_ms;
        uint64_t count;  // kBurst of them were written
    };

    void log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);
    void end_periods();
    bool may_be_written(LogLevel level, std::string_view event);
    void say(const Repeats& repeats);
    std::string line_of(LogLevel level, std::string_view event,
                        std::span<const LogField> fields) const;
    void write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

    int fd_;
    std::atomic<LogLevel> level_;
    std::mutex mutex_;  // held for all that follows
    LogFormat format_ = LogFormat::Json;
    LogTarget target_ = LogTarget::Plain;
    Metrics& metrics_;
    Clock now_ms_;
    std::vector<Repeats> repeats_;  // the oldest first
};

// "debug", "info", "warning" or "error"; false: something else.
[[nodiscard]] bool parse_log_level(std::string_view name, LogLevel& level);
std::string_view to_text(LogLevel level);

// Journal if `fd` is what systemd says in JOURNAL_STREAM, `journal_stream` ("device:inode").
LogTarget log_target(int fd, std::string_view journal_stream);

}  // namespace nearkey
