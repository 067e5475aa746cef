// A program that takes our place: it is given listening sockets as sd_listen_fds(3) has it, our
// stdin, stdout and stderr, and nothing else of ours. Unlike a ChildProcess it lives on when we
// end.
#pragma once

#include <sys/types.h>
#include <string>
#include <vector>

namespace nearkey {

struct GivenDescriptor {
    int fd;
    std::string name;  // for LISTEN_FDNAMES
};

struct SuccessorCommand {
    std::string program;                   // a path
    std::vector<std::string> argv;         // its name first
    std::vector<std::string> environment;  // "name=value", without LISTEN_*
    std::vector<GivenDescriptor> given;
};

// Its pid, the caller's to wait for; -1, and errno, if there is none. A program that can't be run
// ends with status 127.
pid_t start_successor(const SuccessorCommand& command);

}  // namespace nearkey
