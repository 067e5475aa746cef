#include "nearkey/server/process_facts.h"

#include <fcntl.h>
#include <unistd.h>
#include <climits>

namespace nearkey {

namespace {

// The beginning of a file; the lines looked for in it are short.
std::string read_start(const std::string& path) {
    char bytes[1024];
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return "";
    const ssize_t count = read(fd, bytes, sizeof bytes);
    close(fd);
    return count > 0 ? std::string(bytes, static_cast<size_t>(count)) : "";
}

}  // namespace

ProcessFacts process_facts(pid_t pid) {
    if (pid <= 0) return {};
    const std::string directory = "/proc/" + std::to_string(pid);
    ProcessFacts facts;
    facts.command = read_start(directory + "/comm");
    if (!facts.command.empty() && facts.command.back() == '\n') facts.command.pop_back();
    char path[PATH_MAX];
    const ssize_t length = readlink((directory + "/exe").c_str(), path, sizeof path);
    if (length > 0) facts.executable.assign(path, static_cast<size_t>(length));
    // The line of the unified hierarchy, "0::/path"; the others are of version 1.
    const std::string lines = "\n" + read_start(directory + "/cgroup");
    const size_t at = lines.find("\n0::");
    if (at != std::string::npos) {
        facts.cgroup = lines.substr(at + 4, lines.find('\n', at + 4) - at - 4);
        facts.unit = unit_of(facts.cgroup);
    }
    return facts;
}

std::string_view unit_of(std::string_view cgroup) {
    while (!cgroup.empty()) {
        const size_t slash = cgroup.rfind('/');
        const std::string_view part =
            slash == std::string_view::npos ? cgroup : cgroup.substr(slash + 1);
        if (part.ends_with(".service") || part.ends_with(".scope")) return part;
        if (slash == std::string_view::npos) break;
        cgroup = cgroup.substr(0, slash);
    }
    return {};
}

}  // namespace nearkey
