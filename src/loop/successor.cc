#include "nearkey/loop/successor.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <iterator>

namespace nearkey {

namespace {

constexpr int kFirstGiven = 3;
constexpr int kCanNotRun = 127;
constexpr size_t kPidDigits = 20;

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
    explicit Prepared(const SuccessorCommand& command)
        : program(command.program),
          argv(command.argv),
          environment(command.environment),
          moved(command.given.size()) {
        std::string names;
        for (const GivenDescriptor& given : command.given) {
            names += (names.empty() ? "" : ":") + given.name;
            fds.push_back(given.fd);
        }
        environment.push_back("LISTEN_FDS=" + std::to_string(fds.size()));
        environment.push_back("LISTEN_FDNAMES=" + names);
        environment.push_back("LISTEN_PID=" + std::string(kPidDigits, '\0'));
        argv_pointers = pointers_to(argv);
        environment_pointers = pointers_to(environment);
    }

    std::string program;
    std::vector<std::string> argv;
    std::vector<std::string> environment;  // the last is LISTEN_PID, without digits so far
    std::vector<int> fds;
    std::vector<int> moved;
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

[[noreturn]] void become(Prepared& prepared) {
    const auto count = static_cast<int>(prepared.fds.size());
    // In two steps, for their numbers may be among those that they are to have.
    for (size_t i = 0; i < prepared.fds.size(); ++i)
        prepared.moved[i] = fcntl(prepared.fds[i], F_DUPFD, kFirstGiven + count);
    for (int i = 0; i < count; ++i) {
        if (dup2(prepared.moved[static_cast<size_t>(i)], kFirstGiven + i) < 0) _exit(kCanNotRun);
    }
    syscall(SYS_close_range, kFirstGiven + count, ~0U, 0);
    write_own_pid(prepared.environment.back());
    execve(prepared.program.c_str(), prepared.argv_pointers.data(),
           prepared.environment_pointers.data());
    _exit(kCanNotRun);
}

}  // namespace

pid_t start_successor(const SuccessorCommand& command) {
    Prepared prepared(command);
    const pid_t pid = fork();
    if (pid == 0) become(prepared);
    return pid;
}

}  // namespace nearkey
