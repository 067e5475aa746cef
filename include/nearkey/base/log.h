// One JSON object a line: time, level, event, fields. State changes, not requests; never a user's
// key or value. A line that the descriptor can't take at once is dropped and counted: logging
// neither blocks nor fails.
#pragma once

#include "nearkey/base/metrics.h"

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <variant>

namespace nearkey {

enum class LogLevel { Debug, Info, Warning, Error };

struct LogField {
    std::string_view name;
    std::variant<std::string_view, int64_t> value;
};

class Log {
public:
    // Writes to `fd`, which stays the caller's and outlives the log.
    Log(int fd, LogLevel level, Metrics& metrics);

    void debug(std::string_view event, std::initializer_list<LogField> fields);
    void info(std::string_view event, std::initializer_list<LogField> fields);
    void warning(std::string_view event, std::initializer_list<LogField> fields);
    void error(std::string_view event, std::initializer_list<LogField> fields);

private:
    void write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

    int fd_;
    LogLevel level_;
    Metrics& metrics_;
};

}  // namespace nearkey
