// The admin pages over HTTP, for probes and Prometheus, on a socket of their own.
//   /livez    200 while the loop turns            /stats    every metric in one flat JSON object
//   /readyz   200 or 503: state, reason, since    /metrics  the same for Prometheus
// Owned by Daemon. libmicrohttpd without a thread of its own: its epoll descriptor is watched by
// the loop, and all work is done in our callbacks. The one rule: the pages only read, GET and HEAD;
// and over TCP only for callers that name a loopback host, so that no web page in a browser reaches
// them through a name of its own ("DNS rebinding").
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/loop/loop.h"

#include <sys/types.h>
#include <memory>
#include <string>
#include <string_view>

struct MHD_Daemon;
struct MHD_Connection;

namespace nearkey {

struct AdminState {
    bool ready = false;
    std::string state;         // "ready", "not ready" or "draining"
    std::string reason;        // one line
    double since_seconds = 0;  // how long it has been so
};

// Where the pages get what they show.
class AdminSource {
public:
    virtual AdminState admin_state() const = 0;
    virtual const Metrics& metrics() const = 0;

protected:
    ~AdminSource() = default;
};

struct AdminAddress {
    std::string address;  // "/absolute/path", "127.0.0.1:PORT" or "[::1]:PORT"
    mode_t mode = 0660;   // of a Unix socket
};

class AdminServer {
public:
    // Listens and answers at once. Throws std::runtime_error (ListenError) with one line that names
    // the address if it can't.
    AdminServer(Loop& loop, Log& log, const AdminAddress& address, const AdminSource& source);
    // Drops the connections that are open, and removes the socket file if it is still ours.
    ~AdminServer();
    AdminServer(const AdminServer&) = delete;
    AdminServer& operator=(const AdminServer&) = delete;

    // With the real port, if the kernel chose it.
    const std::string& address() const { return listen_.address(); }

private:
    struct Answer;
    struct StopHttp {
        void operator()(MHD_Daemon* http) const;
    };

    void start_http();
    void serve();
    // Returns what libmicrohttpd's callback returns.
    int on_request(MHD_Connection* connection, std::string_view path, std::string_view method);
    Answer answer(std::string_view path) const;
    Answer readyz() const;

    const AdminSource& source_;
    const uint64_t started_ms_;
    Loop& loop_;
    ListenSocket listen_;
    std::unique_ptr<MHD_Daemon, StopHttp> http_;
    Timer timer_;
    std::unique_ptr<FdWatch> watch_;
};

}  // namespace nearkey
