#include "nearkey/loop/child_process.h"

#include "nearkey/base/check.h"
#include "uv_close.h"

#include <linux/close_range.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <utility>

namespace nearkey {

namespace {

constexpr int64_t kGraceMs = 1000;
constexpr int64_t kLookEveryMs = 5;

// What our parent gave us is not for our children; all that we open ourselves closes on exec.
void keep_descriptors_to_ourselves() {
    constexpr unsigned kFirst = 3;
    if (syscall(SYS_close_range, kFirst, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
        uv_disable_stdio_inheritance();
    }
}

}  // namespace

std::optional<int> reap_within(pid_t pid, int64_t timeout_ms) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    // Where the kernel has no pidfd we look every few milliseconds: poll() skips a negative fd.
    const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    bool is_reaped = false;
    int status = 0;
    while (true) {
        is_reaped = waitpid(pid, &status, WNOHANG) != 0;
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (is_reaped || left <= 0) break;
        pollfd watched{pidfd, POLLIN, 0};
        poll(&watched, 1, static_cast<int>(pidfd < 0 ? std::min(left, kLookEveryMs) : left));
    }
    if (pidfd >= 0) close(pidfd);
    return is_reaped ? std::optional<int>(status) : std::nullopt;
}

ChildProcess::ChildProcess(Loop& loop, const ChildCommand& command, OnExit on_exit)
    : on_exit_(std::move(on_exit)) {
    CHECK(!command.argv.empty());
    std::vector<char*> argv;
    for (const std::string& argument : command.argv) {
        argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);

    uv_stdio_container_t stdio[3] = {};
    stdio[0].flags = UV_IGNORE;  // libuv: /dev/null
    for (int i : {1, 2}) {
        stdio[i].flags = command.output == ChildOutput::Discard ? UV_IGNORE : UV_INHERIT_FD;
        stdio[i].data.fd = STDERR_FILENO;
    }
    uv_process_options_t options{};
    options.file = argv[0];
    options.args = argv.data();
    options.stdio_count = 3;
    options.stdio = stdio;
    options.flags = UV_PROCESS_DETACHED;
    options.exit_cb = [](uv_process_t* handle, int64_t status, int signal) {
        if (handle->data == nullptr) return;
        static_cast<ChildProcess*>(handle->data)->on_ended(static_cast<int>(status), signal);
    };

    keep_descriptors_to_ourselves();
    // uv_spawn makes a handle of it, and one that must be closed, even when it fails.
    handle_.reset(new uv_process_t{});
    const int error = uv_spawn(loop.raw(), handle_.get(), &options);
    handle_->data = this;
    is_running_ = error == 0;
    if (error != 0) failure_ = uv_strerror(error);
}

ChildProcess::~ChildProcess() {
    if (!is_running_) return;
    const pid_t child = pid();
    handle_.reset();  // From here on libuv does not wait for it: we do.
    ::kill(child, SIGTERM);
    if (reap_within(child, kGraceMs)) return;
    ::kill(child, SIGKILL);
    // Only a process that hangs in the kernel is not gone by then; init will reap it.
    static_cast<void>(reap_within(child, kGraceMs));
}

pid_t ChildProcess::pid() const {
    return is_running_ ? handle_->pid : 0;
}

void ChildProcess::kill(int signum) {
    if (is_running_) uv_process_kill(handle_.get(), signum);
}

void ChildProcess::on_ended(int status, int signal) {
    is_running_ = false;
    // It may destroy us: nothing of ours is touched after it.
    const OnExit on_exit = std::move(on_exit_);
    on_exit(status, signal);
}

std::vector<std::string> dies_with_us(const std::vector<std::string>& argv, pid_t parent) {
    constexpr const char* kGuard = R"([ "$PPID" = "$1" ] || exit 1; shift; exec "$@")";
    std::vector<std::string> guarded = {"setpriv", "--pdeathsig", "KILL",          "/bin/sh",
                                        "-c",      kGuard,        "nearkey-child", ""};
    guarded.back() = std::to_string(parent);
    guarded.insert(guarded.end(), argv.begin(), argv.end());
    return guarded;
}

}  // namespace nearkey
