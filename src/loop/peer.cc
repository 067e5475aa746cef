#include "nearkey/loop/peer.h"

#include <sys/socket.h>
#include <cerrno>

namespace nearkey {

std::optional<Peer> peer_of(int fd) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return std::nullopt;
    // What the kernel says of a socket that has no peer, as a TCP one.
    if (credentials.pid == 0 && credentials.uid == static_cast<uid_t>(-1)) return std::nullopt;
    return Peer{credentials.pid, credentials.uid, credentials.gid};
}

std::optional<std::vector<gid_t>> peer_groups(int fd) {
    std::vector<gid_t> groups(64);
    // The kernel knows at most 65,536 groups of a process (NGROUPS_MAX), so twice is enough: with
    // ERANGE it says how long the list is.
    for (int attempt = 0; attempt < 2; ++attempt) {
        auto length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
        const int result = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length);
        const bool is_whole = result == 0;
        if (!is_whole && errno != ERANGE) return std::nullopt;
        groups.resize(length / sizeof(gid_t));
        if (is_whole) return groups;
    }
    return std::nullopt;
}

}  // namespace nearkey
