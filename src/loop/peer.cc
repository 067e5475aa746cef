#include "nearkey/loop/peer.h"

#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

namespace nearkey {

namespace {

// The supplementary groups; the one in Peer need not be among them. Nothing if they can't be told.
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

}  // namespace

std::optional<Peer> peer_of(int fd) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return std::nullopt;
    // The kernel's answer for a socket that has no peer, such as a TCP one.
    if (credentials.pid == 0 && credentials.uid == static_cast<uid_t>(-1)) return std::nullopt;
    return Peer{credentials.pid, credentials.uid, credentials.gid};
}

bool PeerRule::admits(int fd) const {
    if (admits_everybody()) return true;
    const auto peer = peer_of(fd);
    if (!peer) return false;
    if (std::find(users.begin(), users.end(), peer->user) != users.end()) return true;
    const auto is_allowed = [&](gid_t group) {
        return std::find(groups.begin(), groups.end(), group) != groups.end();
    };
    if (is_allowed(peer->group)) return true;
    if (groups.empty()) return false;
    const auto others = peer_groups(fd);
    return others && std::any_of(others->begin(), others->end(), is_allowed);
}

}  // namespace nearkey
