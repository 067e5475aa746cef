// Starts another program: the one place where we fork. It gets the descriptors that are named here,
// and no other of ours.
#pragma once

#include <sys/types.h>
#include <array>
#include <string>
#include <vector>

namespace nearkey {

struct ProgramStart {
    // WithUs: killed by the kernel when we end, in whatever way, and in a session of its own, so
    // that the Ctrl-C of a terminal does not reach it.
    enum class Ends { WithUs, ByItself };

    std::string program;  // a path, or a name that is looked for in PATH
    std::vector<std::string> argv;
    std::vector<std::string> environment;  // "name=value"
    std::array<int, 3> stdio;
    std::vector<int> given;            // its descriptors from 3 on
    std::vector<std::string> names{};  // their names; not empty: passed as in sd_listen_fds(3)
    Ends ends;
};

struct StartedProgram {
    pid_t pid;      // the caller's to wait for; -1: there is none
    int error = 0;  // errno, why
};

// Blocks until the program has begun, or can't. REQUIRES: the thread that calls lives as long as
// the process does.
StartedProgram start_program(const ProgramStart& start);

}  // namespace nearkey
