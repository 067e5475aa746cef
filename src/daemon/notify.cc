#include "nearkey/daemon/notify.h"

#include "nearkey/base/parse_number.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <string>

namespace nearkey {

namespace {

constexpr suseconds_t kPatienceUs = 100'000;

std::string_view variable(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string_view{} : value;
}

// A line break would begin another field of the message.
std::string status_field(std::string_view status) {
    std::string field = "STATUS=" + std::string(status);
    std::replace(field.begin(), field.end(), '\n', ' ');
    return field;
}

void notify(const std::string& message) {
    const std::string_view path = variable("NOTIFY_SOCKET");
    sockaddr_un address{};
    if (path.size() < 2 || path.size() >= sizeof address.sun_path) return;
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    socklen_t length = sizeof address;
    if (path.front() == '@') {  // The abstract namespace: the name begins with a NUL.
        address.sun_path[0] = '\0';
        length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    const timeval patience{0, kPatienceUs};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    [[maybe_unused]] const ssize_t sent =
        sendto(fd, message.data(), message.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), length);
    close(fd);
}

}  // namespace

void notify_ready(std::string_view status) {
    notify("READY=1\n" + status_field(status));
}

void notify_status(std::string_view status) {
    notify(status_field(status));
}

// systemd tells by the time that it is this reload which has ended.
void notify_reloading() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t usec = int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
    notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(usec));
}

void notify_stopping(std::string_view status) {
    notify("STOPPING=1\n" + status_field(status));
}

void notify_main_pid(pid_t pid) {
    notify("MAINPID=" + std::to_string(pid));
}

void notify_watchdog() {
    notify("WATCHDOG=1");
}

uint64_t watchdog_ms() {
    const std::string_view pid = variable("WATCHDOG_PID");
    if (!pid.empty() && parse_number<pid_t>(pid) != getpid()) return 0;
    return parse_number<uint64_t>(variable("WATCHDOG_USEC")).value_or(0) / 1000;
}

}  // namespace nearkey
