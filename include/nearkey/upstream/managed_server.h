// A private valkey-server of our own, for `managed:`: one child, on a Unix socket only, without
// persistence, within a memory limit. Owned by Daemon; the node connects to socket_path() as to any
// other server, and finds out by itself when it answers.
//   Starting -> Running when it has lived for a second       any -> Failing when it ends
//   Failing -> Running when it was started again (after a backoff) and has lived for a second
// Each change of state is logged once. The one rule: the server never outlives us. Its socket lies
// in <directory>/managed-<our pid>/ (0700), which goes with us; directories that killed nearkeys
// have left there are removed at start.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/loop/child_process.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/loop/loop.h"
#include "nearkey/upstream/backoff.h"

#include <sys/types.h>
#include <cstdint>
#include <memory>
#include <string>

namespace nearkey {

struct ManagedServerOptions {
    std::string server = "valkey-server";  // a name or a path; redis-server in the default's place
    uint64_t memory_bytes = uint64_t{256} << 20;
    std::string directory;  // absolute; created with mode 0700 if it does not exist
    uint64_t backoff_min_ms = 50;
    uint64_t backoff_max_ms = 1000;
    uint64_t seed = 1;  // of the backoff's jitter
};

class ManagedServer {
public:
    // Starts it. Throws std::runtime_error with one line if there is no server to start or no place
    // for its socket. Later failures are only logged, counted and tried again.
    // REQUIRES: the calling thread lives as long as this object: the server is bound to it.
    ManagedServer(Loop& loop, Log& log, Metrics& metrics, const ManagedServerOptions& options);
    // Ends the server (SIGTERM, SIGKILL after a second) and removes its directory.
    ~ManagedServer();

    std::string socket_path() const;
    // 0 while it does not run.
    pid_t pid() const { return child_ == nullptr ? 0 : child_->pid(); }

private:
    enum class State { Starting, Running, Failing };

    void start();
    void on_timer();
    void on_exit(int status, int signal);
    void fail_and_retry();

    Loop& loop_;
    Log& log_;
    Metrics& metrics_;
    ManagedServerOptions options_;
    std::string program_;
    std::string directory_;
    std::unique_ptr<FileLock> lock_;  // says that directory_ is in use
    State state_ = State::Starting;
    Backoff backoff_;
    Timer timer_;  // runs while Starting and Failing: until it is settled, or until the next try
    std::unique_ptr<ChildProcess> child_;
};

}  // namespace nearkey
