// Which users may connect to a listener: [[listener]] allow_users and allow_groups, as ids.
// A value; names were resolved when the configuration was read.
#pragma once

#include <sys/types.h>
#include <vector>

namespace nearkey {

struct PeerRule {
    std::vector<uid_t> users;
    std::vector<gid_t> groups;

    // Whoever can open the socket.
    bool admits_everybody() const { return users.empty() && groups.empty(); }
    // A peer whose credentials can't be told is not admitted. REQUIRES: a connected Unix socket.
    bool admits(int fd) const;
};

}  // namespace nearkey
