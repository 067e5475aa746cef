// What [log] of the configuration means for the log. The daemon says so when it starts, and after
// each reload; POST /log-level holds until then.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/daemon/config.h"

namespace nearkey {

// `fd` is where `log` writes. REQUIRES: the options came from load_config() or are {}.
void apply_log_options(const LogOptions& options, const Environment& environment, int fd, Log& log);

}  // namespace nearkey
