// The program behind a pid, as /proc tells it at this moment.
// A few system calls for each process: callers that ask for many bound their number. A process that
// is gone, or that we may not look at, has empty texts.
#pragma once

#include <sys/types.h>
#include <string>
#include <string_view>

namespace nearkey {

struct ProcessFacts {
    std::string command;     // its name, 15 bytes at most
    std::string executable;  // its path; empty for another user's process unless we may trace it
    std::string cgroup;      // "/system.slice/shop.service"
    std::string unit;        // "shop.service"; empty: it is in none
};

ProcessFacts process_facts(pid_t pid);
// The innermost part of a cgroup's path that is a service or a scope.
std::string_view unit_of(std::string_view cgroup);

}  // namespace nearkey
