// `nearkey ready`: asks a running nearkey for /readyz, once, and says in one line what it heard.
// It blocks, has no loop, and never takes longer than its timeout.
#pragma once

#include <iosfwd>
#include <string>

namespace nearkey {

// Returns the exit code: 0 ready, 1 not ready, 2 nobody answers in time, or not as nearkey does.
// `admin_address` as parse_socket_address() takes it. REQUIRES: timeout_ms > 0.
int run_ready(const std::string& admin_address, int timeout_ms, std::ostream& out);

}  // namespace nearkey
