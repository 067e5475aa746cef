// Whether a crash of this process may leave a core. It would hold whatever is in our buffers:
// clients' keys and values, and the password for Valkey.
#pragma once

namespace nearkey {

enum class CoreDumps { Forbidden, Allowed };

// Forbidden: RLIMIT_CORE is 0, and the process is not dumpable, which also holds for programs that
// take cores through a pipe and heed no limit, and keeps /proc/PID/environ and mem from processes
// of the same user.
void set_core_dumps(CoreDumps wish);

}  // namespace nearkey
