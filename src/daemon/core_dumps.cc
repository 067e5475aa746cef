#include "nearkey/daemon/core_dumps.h"

#include <sys/prctl.h>
#include <sys/resource.h>

namespace nearkey {

// The soft limit only: the operator may change his mind.
void set_core_dumps(CoreDumps wish) {
    const bool is_allowed = wish == CoreDumps::Allowed;
    rlimit limit{};
    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = is_allowed ? limit.rlim_max : 0;
        setrlimit(RLIMIT_CORE, &limit);
    }
    prctl(PR_SET_DUMPABLE, is_allowed ? 1 : 0, 0, 0, 0);
}

}  // namespace nearkey
