#include "nearkey/loop/program_start.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>

namespace nearkey {

namespace {

constexpr size_t kPidDigits = 20;
constexpr int kNotRun = 127;

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (std::string& text : texts)
        pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
}

// Everything that the child needs is made before fork(): libuv has threads, so that in the child
// nothing may be allocated.
struct Prepared {
    explicit Prepared(const ProgramStart& start)
        : program(start.program),
          argv(start.argv),
          environment(start.environment),
          fds(start.stdio.begin(), start.stdio.end()),
          ends(start.ends),
          parent(getpid()) {
        fds.insert(fds.end(), start.given.begin(), start.given.end());
        if (!start.names.empty()) {
            std::string names;
            for (const std::string& name : start.names)
                names += (names.empty() ? "" : ":") + name;
            environment.push_back("LISTEN_FDS=" + std::to_string(start.given.size()));
            environment.push_back("LISTEN_FDNAMES=" + names);
            environment.push_back("LISTEN_PID=" + std::string(kPidDigits, '\0'));
            own_pid = &environment.back();
        }
        argv_pointers = pointers_to(argv);
        environment_pointers = pointers_to(environment);
    }
    Prepared(const Prepared&) = delete;
    Prepared& operator=(const Prepared&) = delete;

    std::string program;
    std::vector<std::string> argv;
    std::vector<std::string> environment;
    std::string* own_pid = nullptr;  // LISTEN_PID, without digits so far; null: not wanted
    std::vector<int> fds;            // the child's 0, 1, ...
    ProgramStart::Ends ends;
    pid_t parent;
    std::vector<char*> argv_pointers;
    std::vector<char*> environment_pointers;
};

void write_own_pid(std::string& variable) {
    char digits[kPidDigits];
    size_t count = 0;
    for (pid_t rest = getpid(); rest > 0; rest /= 10)
        digits[count++] = static_cast<char>('0' + rest % 10);
    char* end = variable.data() + variable.find('=') + 1;
    while (count > 0)
        *end++ = digits[--count];
}

// Each descriptor to its place, the channel for errors behind them, and no other one.
int arrange(Prepared& prepared, int errors) {
    const auto count = static_cast<int>(prepared.fds.size());
    // In two steps, for their numbers may be among those that they are to have.
    for (int& fd : prepared.fds)
        fd = fcntl(fd, F_DUPFD, count + 1);
    const int moved = fcntl(errors, F_DUPFD, count + 1);
    for (int i = 0; i < count; ++i) {
        if (dup2(prepared.fds[static_cast<size_t>(i)], i) < 0) return -1;
    }
    if (dup3(moved, count, O_CLOEXEC) < 0) return -1;
    syscall(SYS_close_range, count + 1, ~0U, 0);
    return count;
}

[[noreturn]] void become(Prepared& prepared, int errors) {
    if (prepared.ends == ProgramStart::Ends::WithUs) {
        setsid();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        // Our parent may have ended just before.
        if (getppid() != prepared.parent) _exit(kNotRun);
    }
    std::signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int channel = arrange(prepared, errors);
    if (channel >= 0) {
        if (prepared.own_pid != nullptr) write_own_pid(*prepared.own_pid);
        execvpe(prepared.program.c_str(), prepared.argv_pointers.data(),
                prepared.environment_pointers.data());
    }
    const int error = errno;
    [[maybe_unused]] const ssize_t written =
        write(channel >= 0 ? channel : errors, &error, sizeof error);
    _exit(kNotRun);
}

}  // namespace

StartedProgram start_program(const ProgramStart& start) {
    Prepared prepared(start);
    int channel[2];
    if (pipe2(channel, O_CLOEXEC) != 0) return {-1, errno};
    const pid_t pid = fork();
    if (pid == 0) become(prepared, channel[1]);
    const int fork_error = errno;
    close(channel[1]);
    int error = 0;
    ssize_t heard = 0;
    // The channel's end without a word: the program runs.
    while (pid > 0 && (heard = read(channel[0], &error, sizeof error)) < 0 && errno == EINTR) {
    }
    close(channel[0]);
    if (pid < 0) return {-1, fork_error};
    if (heard != sizeof error) return {pid, 0};
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return {-1, error};
}

}  // namespace nearkey
