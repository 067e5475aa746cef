#include "nearkey/daemon/logging.h"

#include "nearkey/base/check.h"

namespace nearkey {

void apply_log_options(const LogOptions& options, const Environment& environment, int fd,
                       Log& log) {
    LogLevel level = LogLevel::Info;
    CHECK(parse_log_level(options.level, level));
    log.set_level(level);
    const std::string* const journal = environment.find("JOURNAL_STREAM");
    log.set_format(options.format == "text" ? LogFormat::Text : LogFormat::Json,
                   log_target(fd, journal != nullptr ? *journal : ""));
}

}  // namespace nearkey
