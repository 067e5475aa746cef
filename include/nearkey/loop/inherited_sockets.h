// The listening sockets that our starter has opened for us: systemd's socket units,
// systemd-socket-activate, or the nearkey that we replace (daemon/succession.h). They come as
// sd_listen_fds(3) has it: LISTEN_FDS descriptors from 3 on for the process LISTEN_PID, with the
// names of LISTEN_FDNAMES.
// Owned by Daemon, which hands each to its listener. The one rule: a socket that nobody took is
// closed, and its file removed only if a predecessor left it to us.
#pragma once

#include "nearkey/loop/listen_socket.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Values from the environment; empty: not set.
struct ListenVariables {
    std::string fds;
    std::string pid;
    std::string names;
    int first_fd = 3;
};

class InheritedSockets {
public:
    // The names that tell what a descriptor is for.
    static constexpr std::string_view kAdmin = "admin";
    static constexpr std::string_view kMetrics = "metrics";  // any address; the others: this host
    // Names from a nearkey to its successor: a socket that it bound itself, the lock of one, and
    // the channel between the two.
    static constexpr std::string_view kOwn = "nearkey-own";
    static constexpr std::string_view kLock = "nearkey-lock";
    static constexpr std::string_view kChannel = "nearkey-upgrade";

    InheritedSockets() = default;
    // Throws ListenError if the variables are meant for us and the sockets are not there.
    explicit InheritedSockets(const ListenVariables& variables);
    ~InheritedSockets();
    InheritedSockets(const InheritedSockets&) = delete;
    InheritedSockets& operator=(const InheritedSockets&) = delete;

    // The addresses of clients' sockets that our starter wants us to serve.
    std::vector<std::string> foreign_addresses() const;
    // The address of the one with that name; empty: there is none.
    std::string address_of(std::string_view name) const;
    // The socket with that address. Null: there is none.
    std::unique_ptr<ListenSocket> take(std::string_view address);
    // The caller's to close; -1: there is none.
    int take_channel();
    // Stops listening on the sockets that a predecessor has left to us and nobody took.
    void drop_rest();

private:
    struct Entry {
        std::string name;
        std::unique_ptr<ListenSocket> socket;
    };
    void adopt(int fd, const std::string& name);

    std::vector<Entry> entries_;
    std::vector<int> locks_;
    int channel_ = -1;
};

}  // namespace nearkey
