#include "nearkey/base/log.h"

#include <nlohmann/json.hpp>

#include <poll.h>
#include <unistd.h>
#include <chrono>
#include <ctime>
#include <string>

namespace nearkey {

namespace {

constexpr std::string_view kLevelNames[] = {"debug", "info", "warning", "error"};

std::string utc_now() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    gmtime_r(&now.tv_sec, &parts);
    char text[40];
    const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    std::snprintf(text + length, sizeof text - length, ".%03ldZ", now.tv_nsec / 1'000'000);
    return text;
}

// The descriptor may be shared with others, so it is asked with poll, not made non-blocking. A line
// is shorter than PIPE_BUF: a pipe that polls writable takes it whole.
bool takes_a_line(int fd) {
    pollfd watched{fd, POLLOUT, 0};
    return poll(&watched, 1, 0) == 1 && (watched.revents & POLLOUT) != 0;
}

constexpr size_t kLineMax = 4096;

}  // namespace

Log::Log(int fd, LogLevel level, Metrics& metrics) : fd_(fd), level_(level), metrics_(metrics) {
}

void Log::debug(std::string_view event, std::initializer_list<LogField> fields) {
    write(LogLevel::Debug, event, fields);
}
void Log::info(std::string_view event, std::initializer_list<LogField> fields) {
    write(LogLevel::Info, event, fields);
}
void Log::warning(std::string_view event, std::initializer_list<LogField> fields) {
    write(LogLevel::Warning, event, fields);
}
void Log::error(std::string_view event, std::initializer_list<LogField> fields) {
    write(LogLevel::Error, event, fields);
}

void Log::write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
    if (level < level_) return;
    nlohmann::ordered_json object;
    object["time"] = utc_now();
    object["level"] = kLevelNames[static_cast<size_t>(level)];
    object["event"] = event;
    for (const LogField& field : fields) {
        std::visit([&](const auto& value) { object[std::string(field.name)] = value; },
                   field.value);
    }
    // Bytes that are not UTF-8 are replaced: dump() would throw otherwise.
    std::string line =
        object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    line += '\n';
    if (line.size() > kLineMax || !takes_a_line(fd_) ||
        ::write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
        ++metrics_.log_dropped_total;
    }
}

}  // namespace nearkey
