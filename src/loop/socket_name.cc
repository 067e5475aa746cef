#include "nearkey/loop/socket_name.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <cstddef>
#include <cstring>

namespace nearkey {

namespace {

using AskForName = int (*)(int, sockaddr*, socklen_t*);

std::string name_of(int fd, AskForName ask) {
    union {
        sockaddr any;
        sockaddr_un local;
        sockaddr_in v4;
        sockaddr_in6 v6;
    } name{};
    socklen_t length = sizeof name;
    if (fd < 0 || ask(fd, &name.any, &length) != 0) return "";
    char text[INET6_ADDRSTRLEN];
    if (name.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &name.v4.sin_addr, text, sizeof text);
        return std::string(text) + ":" + std::to_string(ntohs(name.v4.sin_port));
    }
    if (name.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &name.v6.sin6_addr, text, sizeof text);
        return "[" + std::string(text) + "]:" + std::to_string(ntohs(name.v6.sin6_port));
    }
    constexpr size_t kPathAt = offsetof(sockaddr_un, sun_path);
    if (name.any.sa_family != AF_UNIX || length <= kPathAt) return "";
    // The longest path fills its field without a NUL.
    return {name.local.sun_path, strnlen(name.local.sun_path, length - kPathAt)};
}

}  // namespace

std::string local_name(int fd) {
    return name_of(fd, getsockname);
}

std::string peer_name(int fd) {
    return name_of(fd, getpeername);
}

bool is_same_file(int fd, const std::string& path) {
    struct stat held {};
    struct stat named {};
    return fstat(fd, &held) == 0 && lstat(path.c_str(), &named) == 0 &&
           held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

}  // namespace nearkey
