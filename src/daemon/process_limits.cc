#include "nearkey/daemon/process_limits.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <stdexcept>
#include <string>

namespace nearkey {

namespace {
// The loop, the sockets and a few clients; below, something would fail half way.
constexpr rlim_t kDescriptorsMin = 64;
}  // namespace

void provide_descriptors() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    if (limit.rlim_max < kDescriptorsMin) {
        throw std::runtime_error("only " + std::to_string(limit.rlim_max) +
                                 " file descriptors are allowed, and " +
                                 std::to_string(kDescriptorsMin) +
                                 " are the least; raise LimitNOFILE= of the unit (ulimit -n)");
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void warn_of_few_descriptors(const Config& config, Log& log) {
    const uint64_t wanted = kDescriptorsMin + config.limits.clients_max +
                            config.upstream.connections_max + config.upstream.dedicated_max;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
    log.warning("few_descriptors",
                {{"allowed", static_cast<int64_t>(limit.rlim_cur)},
                 {"wanted", static_cast<int64_t>(wanted)},
                 {"reason",
                  "limits.clients_max and upstream.*_max together need more file "
                  "descriptors; raise LimitNOFILE= of the unit (ulimit -n), or lower "
                  "limits.clients_max"}});
}

// The soft limit only: the operator may change his mind.
void set_core_dumps(const ServerOptions& options) {
    rlimit limit{};
    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = options.core_dumps ? limit.rlim_max : 0;
        setrlimit(RLIMIT_CORE, &limit);
    }
    prctl(PR_SET_DUMPABLE, options.core_dumps ? 1 : 0, 0, 0, 0);
}

}  // namespace nearkey
