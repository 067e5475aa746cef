// Who is at the other end of a Unix socket, by the kernel's word (SO_PEERCRED): as they were when
// they connected. Credentials of a user namespace that we do not see into read as 65534.
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
// The supplementary groups; the one in Peer need not be among them. Nothing if they can't be told.
std::optional<std::vector<gid_t>> peer_groups(int fd);

}  // namespace nearkey
