// A program that we run, and that ends with us. Owned by the part that needs it.
// It gets no descriptor of ours but /dev/null (and stderr, or one to write to), and a session of
// its own: the Ctrl-C of a terminal reaches us alone, and we decide in which order things end.
// The one rule: no child is left behind. Destroying the object sends SIGTERM, waits up to one
// second, then sends SIGKILL, and reaps; if we ourselves are killed, the kernel kills it.
#pragma once

#include "nearkey/base/unique_fd.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/loop.h"

#include <sys/types.h>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nearkey {

enum class ChildOutput { Discard, ToOurStderr };

struct ChildCommand {
    std::vector<std::string> argv;  // the program first, looked for in PATH
    ChildOutput output = ChildOutput::Discard;
    int stdout_fd = -1;  // the caller's descriptor for its stdout in place of that; -1: none
};

class ChildProcess {
public:
    // Tells how it ended: its exit status, or the signal that ended it (else 0).
    using OnExit = std::function<void(int status, int signal)>;

    // Starts it. If that fails, is_running() is false, failure() says why and on_exit never comes.
    // on_exit runs on the loop, once, and may destroy this object; it does not run for a child that
    // ends because this object is destroyed.
    ChildProcess(Loop& loop, const ChildCommand& command, OnExit on_exit);
    // Blocks while the child takes its time, two seconds at most.
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    bool is_running() const { return pid_ > 0; }
    const std::string& failure() const { return failure_; }
    // 0 unless it is running.
    pid_t pid() const { return pid_; }
    void kill(int signum);

private:
    void watch();
    void look();

    Loop& loop_;
    OnExit on_exit_;
    std::string failure_;
    pid_t pid_ = 0;
    UniqueFd pidfd_;  // readable when it has ended; none: the kernel has none, and the timer looks
    std::unique_ptr<FdWatch> watch_;
    Timer timer_;
};

// Returns how our child has ended (as in waitpid()), if it does within the time; then it is reaped,
// and its pid anybody's. Blocks. REQUIRES: nobody else waits for it.
std::optional<int> reap_within(pid_t pid, int64_t timeout_ms);

// Reaps what has ended and is none of `ours`. The first process of a container is given what others
// leave behind there.
void reap_others(std::span<const pid_t> ours);

}  // namespace nearkey
