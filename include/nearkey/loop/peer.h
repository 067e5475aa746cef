// The process at the other end of a Unix socket, by the kernel's word (SO_PEERCRED): as it was when
// it connected. Credentials of a user namespace that we do not see into read as 65534.
#pragma once

#include <sys/types.h>
#include <optional>
#include <vector>

namespace nearkey {

struct Peer {
    pid_t pid = 0;
    uid_t user = 0;
    gid_t group = 0;
};

// Nothing for a socket that is not a Unix socket.
std::optional<Peer> peer_of(int fd);

// The users that may connect to a listener: [[listener]] allow_users and allow_groups, as ids. A
// value; names were resolved when the configuration was read.
struct PeerRule {
    std::vector<uid_t> users;
    std::vector<gid_t> groups;

    // True if every user who can open the socket may connect.
    bool admits_everybody() const { return users.empty() && groups.empty(); }
    // A peer whose credentials can't be told is not admitted. REQUIRES: a connected Unix socket.
    bool admits(int fd) const;
};

}  // namespace nearkey
