// Notices that a Unix socket's file was removed or replaced, and binds it anew. Lets a socket that
// has refused listen again.
// One for each listening socket, asked from time to time by its owner; says each change of state
// once in the log.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/loop/listen_socket.h"

#include <string>

namespace nearkey {

class SocketMender {
public:
    // The descriptor of the old socket if a new one was bound (ListenSocket::rebind), else -1.
    int mend(ListenSocket& socket, Log& log, Metrics& metrics);
    // False: it can't, and refuses still. REQUIRES: socket.is_refusing().
    bool listen_again(ListenSocket& socket, Log& log);
    // True if the socket's file is lost: nobody can connect.
    bool is_lost() const { return !problem_.empty(); }

private:
    void note(const ListenSocket& socket, const std::string& problem, Log& log);

    std::string problem_;  // why it can't be bound anew; empty: it is not lost
};

}  // namespace nearkey
