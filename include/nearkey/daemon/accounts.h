// The users and groups that a listener names, as ids. Asked of the system at the start and at each
// reload, never for a client.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/daemon/config.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/server/client_server.h"

#include <sys/types.h>
#include <cstdint>
#include <string>
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

// A user that our user namespace does not map (PrivateUsers= of the unit) comes as `nobody`, so a
// listener that lets this user in by name would turn it away. Takes /proc/self/uid_map, gid_map.
bool is_mapped(const std::string& map, uint32_t id);
void warn_of_hidden_accounts(const std::vector<ClientServer::Door>& doors, Log& log);

}  // namespace nearkey
