#include "nearkey/loop/child_process.h"

#include "nearkey/base/check.h"
#include "nearkey/base/unique_fd.h"
#include "nearkey/loop/program_start.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <system_error>
#include <utility>

namespace nearkey {

namespace {

constexpr int64_t kGraceMs = 1000;
constexpr int64_t kLookEveryMs = 5;
constexpr uint64_t kLookOnLoopEveryMs = 50;

UniqueFd open_pidfd(pid_t pid) {
    return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

std::vector<std::string> own_environment() {
    std::vector<std::string> environment;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
        environment.emplace_back(*entry);
    return environment;
}

}  // namespace

std::optional<int> reap_within(pid_t pid, int64_t timeout_ms) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    // Where the kernel has no pidfd we look every few milliseconds: poll() skips a negative fd.
    const UniqueFd pidfd = open_pidfd(pid);
    bool is_reaped = false;
    int status = 0;
    while (true) {
        is_reaped = waitpid(pid, &status, WNOHANG) != 0;
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (is_reaped || left <= 0) break;
        pollfd watched{pidfd.get(), POLLIN, 0};
        poll(&watched, 1, static_cast<int>(pidfd.get() < 0 ? std::min(left, kLookEveryMs) : left));
    }
    return is_reaped ? std::optional<int>(status) : std::nullopt;
}

void reap_others(std::span<const pid_t> ours) {
    siginfo_t ended{};
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
        // The next look comes when its owner has taken it.
        if (std::find(ours.begin(), ours.end(), ended.si_pid) != ours.end()) return;
        waitpid(ended.si_pid, nullptr, WNOHANG);
        ended = {};
    }
}

ChildProcess::ChildProcess(Loop& loop, const ChildCommand& command, OnExit on_exit)
    : loop_(loop), on_exit_(std::move(on_exit)), timer_(loop, [this] { look(); }) {
    NEARKEY_CHECK(!command.argv.empty());
    UniqueFd nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
    const int output = command.output == ChildOutput::Discard ? nothing.get() : STDERR_FILENO;
    const int to = command.stdout_fd < 0 ? output : command.stdout_fd;
    const StartedProgram started = start_program({.program = command.argv.front(),
                                                  .argv = command.argv,
                                                  .environment = own_environment(),
                                                  .stdio = {nothing.get(), to, output},
                                                  .given = {},
                                                  .ends = ProgramStart::Ends::WithUs});
    nothing.reset();
    if (started.pid < 0) {
        failure_ = std::system_category().message(started.error);
        return;
    }
    pid_ = started.pid;
    watch();
}

ChildProcess::~ChildProcess() {
    watch_.reset();
    if (pid_ == 0) return;
    ::kill(pid_, SIGTERM);
    if (reap_within(pid_, kGraceMs)) return;
    ::kill(pid_, SIGKILL);
    // Only a process that hangs in the kernel is not gone by then; init will reap it.
    static_cast<void>(reap_within(pid_, kGraceMs));
}

void ChildProcess::kill(int signum) {
    if (pid_ > 0) ::kill(pid_, signum);
}

void ChildProcess::watch() {
    pidfd_ = open_pidfd(pid_);
    if (pidfd_.get() < 0) {
        timer_.start_repeating(kLookOnLoopEveryMs);
        return;
    }
    watch_ = std::make_unique<FdWatch>(loop_, pidfd_.get(), [this](FdEvents) { look(); });
    watch_->want({true, false});
}

void ChildProcess::look() {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == 0) return;
    pid_ = 0;
    if (watch_ != nullptr) watch_->want({false, false});
    timer_.stop();
    // on_exit may destroy us: no member is touched after it.
    const OnExit on_exit = std::move(on_exit_);
    on_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 0,
            WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

}  // namespace nearkey
