// The users and groups that a listener names, as ids. Asked of the system at the start and at each
// reload, never for a client.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/loop/listen_socket.h"

#include <sys/types.h>
#include <vector>

namespace nearkey {

struct ListenerAccounts {
    uid_t owner = SocketFile::kOurs;
    gid_t group = SocketFile::kOurs;
    std::vector<uid_t> allow_users;
    std::vector<gid_t> allow_groups;
};

// Throws ConfigError where the system knows no such user or group.
ListenerAccounts resolve_accounts(const Listener& listener);

}  // namespace nearkey
