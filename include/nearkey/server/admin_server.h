// Serves the admin pages over HTTP, for probes, Prometheus and people, on a socket of its own; or,
// on another one, those that other hosts may read.
// Owned by HttpServers. libmicrohttpd without a thread of its own: its epoll descriptor is watched
// by the loop, and all work is done in our callbacks. The one rule: connections, requests and the
// time that they take are bounded, for each server by itself, so that nobody who can connect here
// is felt by the clients.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/loop/loop.h"
#include "nearkey/server/admin_pages.h"
#include "nearkey/server/socket_mender.h"

#include <sys/types.h>
#include <memory>
#include <string>
#include <unordered_map>

struct MHD_Daemon;
struct MHD_Connection;

namespace nearkey {

enum class AdminReach {
    Host,     // who may open the socket reads and does everything
    Network,  // anybody reads network_routes()
};

class AdminServer {
public:
    // Answers at once on the socket, which listens. Throws std::runtime_error if it can't.
    AdminServer(Loop& loop, Log& log, std::unique_ptr<ListenSocket> socket, AdminSource& source,
                AdminReach reach);
    // Drops the connections that are open; the socket ends as ListenSocket's do.
    ~AdminServer();
    AdminServer(const AdminServer&) = delete;
    AdminServer& operator=(const AdminServer&) = delete;

    // The address, with the real port if the kernel chose it.
    const std::string& address() const { return listen_->address(); }
    const ListenSocket& socket() const { return *listen_; }
    // Sets the mode of its file, if it has one that is ours.
    void set_mode(mode_t mode) { listen_->set_mode(mode); }
    // Binds the socket anew if it has lost its file, which drops the connections that are open.
    // True if the file is still lost. Throws as the constructor does.
    bool mend_socket(Metrics& metrics);
    // Leaves the socket to another process. Only the destructor may follow.
    void leave();

private:
    struct StopHttp {
        void operator()(MHD_Daemon* http) const;
    };

    void start_http();
    void stop_http();
    void serve();
    [[nodiscard]] bool make_places();
    void await_request(MHD_Connection* connection);
    static void end(MHD_Connection* connection);
    void end_slow_requests();
    // Returns what libmicrohttpd's callback returns.
    int answer(MHD_Connection* connection, const AdminRequest& request);

    AdminSource& source_;
    const AdminReach reach_;
    Loop& loop_;
    Log& log_;
    std::unique_ptr<ListenSocket> listen_;
    SocketMender mender_;
    // The request that each connection is to bring.
    struct Awaited {
        uint64_t deadline_ms;  // on the loop's clock
        uint64_t number;       // in the order in which they began to be awaited
    };
    std::unordered_map<MHD_Connection*, Awaited> awaited_;
    uint64_t requests_awaited_ = 0;
    Timer deadline_timer_;
    std::unique_ptr<MHD_Daemon, StopHttp> http_;
    Timer timer_;
    std::unique_ptr<FdWatch> watch_;
};

}  // namespace nearkey
