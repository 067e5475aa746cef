#include "nearkey/server/socket_mender.h"

#include <string_view>

namespace nearkey {

int SocketMender::mend(ListenSocket& socket, Log& log, Metrics& metrics) {
    if (!socket.has_lost_file()) {
        // It may have been put back.
        problem_.clear();
        return -1;
    }
    if (!socket.is_ours()) {
        note(socket,
             "its file was removed or replaced, and nearkey did not make it; start its socket unit "
             "again",
             log);
        return -1;
    }
    try {
        const int before = socket.rebind();
        ++metrics.sockets_rebound_total;
        log.warning("socket_rebound", {{"address", std::string_view(socket.address())},
                                       {"reason", "its file was removed or replaced"}});
        problem_.clear();
        return before;
    } catch (const ListenError& error) {
        note(socket, error.what(), log);
        return -1;
    }
}

bool SocketMender::listen_again(ListenSocket& socket, Log& log) {
    try {
        socket.listen_again();
        problem_.clear();
        return true;
    } catch (const ListenError& error) {
        note(socket, error.what(), log);
        return false;
    }
}

void SocketMender::note(const ListenSocket& socket, const std::string& problem, Log& log) {
    if (problem == problem_) return;
    problem_ = problem;
    log.error("socket_lost", {{"address", std::string_view(socket.address())},
                              {"reason", std::string_view(problem_)}});
}

}  // namespace nearkey
