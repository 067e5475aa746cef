// Limits of the process. File descriptors, one for each client and each connection: too few to
// start are refused, too few for what the options allow are said once in the log. Cores: a crash
// may leave one with whatever is in our buffers: clients' keys and values, Valkey's password.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/daemon/config.h"

namespace nearkey {

// Raises the soft limit to the hard one. Throws std::runtime_error if that is too few to work with.
// Called before anything is opened.
void provide_descriptors();

// Says so if they are too few for the clients and connections that the options allow.
void warn_of_few_descriptors(const Config& config, Log& log);

// Applies server.core_dumps. Without it RLIMIT_CORE is 0, and the process is not dumpable, which
// also holds for programs that take cores through a pipe and heed no limit, and keeps
// /proc/PID/environ and mem from processes of the same user.
void set_core_dumps(const ServerOptions& options);

}  // namespace nearkey
