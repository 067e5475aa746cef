// The file descriptors that the process may have: one for each client and each connection.
// Too few to start are refused; too few for what the options allow are said once in the log.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/daemon/config.h"

namespace nearkey {

// Raises the soft limit to the hard one. Throws std::runtime_error if that is too few to work with.
// Called before anything is opened.
void provide_descriptors();

// Says so if they are too few for the clients and connections that the options allow.
void warn_of_few_descriptors(const Config& config, Log& log);

}  // namespace nearkey
