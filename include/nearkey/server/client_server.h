// The listening sockets and the clients behind them.
// Owned by Worker, destroyed before the node. Where there are several event loops, one of them
// listens for all and hands clients over to the others (ClientExchange). Owns every session; one
// that has ended is destroyed before the loop sleeps, never inside its own callback.
#pragma once

#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/loop/peer.h"
#include "nearkey/server/socket_mender.h"
#include "nearkey/session/session.h"

#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

namespace nearkey {

// Between the event loop that accepts all clients and the others.
class ClientExchange {
public:
    // True if another event loop takes the client: then its take() is called there.
    virtual bool hand_over(uint64_t listener, int fd, uint64_t id) = 0;
    // A client is gone. If it was handed over, on_client_left() is called on the loop that accepted
    // it.
    virtual void on_client_ended(uint64_t listener) = 0;

protected:
    ~ClientExchange() = default;
};

class ClientServer final : private SessionEvents, private Deferred {
public:
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        Node& node;
        std::span<char> scratch;  // for reading, shared by all clients
        HotKeys& hot_keys;
        SlowLog& slow_log;
        const MetricsGroup& all;             // of all event loops
        size_t loops = 1;                    // that many
        Cluster* cluster = nullptr;          // null: the upstream is one server
        KnownScripts* scripts = nullptr;     // null: nobody keeps them
        OwnWrites* own_writes = nullptr;     // null: no listener reads from replicas
        ClientExchange* exchange = nullptr;  // null: there are no others
        FillWaiterLoop* fill_loop = nullptr;
        SegmentSource* segment = nullptr;  // null: there is no shared memory
    };
    ClientServer(const Parts& parts, const LimitOptions& limits);
    ~ClientServer();

    struct Door {
        std::string address;
        int backlog;
        SocketFile file;
        PeerRule peers;     // who may connect; for a Unix socket alone
        ClientTerms terms;  // their terms, but for `access`, which is made of these:
        std::vector<AccessRule> rules;
        // The same address, bound by somebody else already; null: we bind it.
        std::unique_ptr<ListenSocket> bound = nullptr;
        bool is_elsewhere = false;  // another event loop listens there
    };
    // Listens at these doors and at no others from now on. Clients can connect to a new one, and
    // wait until start_accepting(). The terms of a door that is open already are replaced; the
    // clients of one that is closed stay. Throws ListenError, and then nothing has changed.
    void open_doors(std::vector<Door> doors);
    // The upstream is a cluster. REQUIRES: no client was served.
    void use_cluster(Cluster& cluster) { context_.cluster = context_.ledgers.cluster = &cluster; }
    // Copies of the limits are read anew. Clients that are there keep their limits.bulk_max.
    void apply_limits();
    void start_accepting();
    // The server's command table is another one.
    void on_commands_changed();
    std::vector<const ListenSocket*> sockets() const;
    // A client that another event loop has accepted.
    void take(uint64_t listener, int fd, uint64_t id);
    // A client that was handed over to another event loop is gone.
    void on_client_left(uint64_t listener);
    // Binds sockets anew that have lost their file; returns how many have lost it still. While
    // Valkey is away a listener with when_down = "close" refuses all clients.
    uint64_t mend_sockets(bool is_upstream_ready);
    // Another process accepts from here on; `left` is called once no session is left.
    void leave_sockets(std::function<void()> left);
    // Accepts nobody any more, lets every session finish what it owes; `drained` is called once
    // none is left, at once or later.
    void drain(std::function<void()> drained);
    size_t count() const { return clients_.size(); }
    // Gives back memory that was kept for a burst. Looks at every client: not for each turn.
    void shrink();
    // The first `limit` clients whose sessions' numbers are above `after`.
    ClientList list(uint64_t after, size_t limit) const;

private:
    // Once closed it stays, for its clients' terms are here.
    struct Listener {
        Listener(ClientServer& server, Door opened);
        void change(Door to);
        void close();
        std::unique_ptr<FdWatch> watch_socket(ClientServer& server);

        const std::string address;
        uint64_t number = 0;  // the same on all event loops
        bool is_open = true;
        PeerRule peers;
        std::vector<AccessRule> rules;
        ClientTerms terms;
        bool is_checked;                       // warnings about its rules were logged
        std::unique_ptr<ListenSocket> socket;  // null: closed, or elsewhere
        std::unique_ptr<FdWatch> watch;
        SocketMender mender;
        uint64_t clients = 0;  // with those that were handed over
    };
    struct Client {
        Listener& listener;
        std::unique_ptr<Session> session;
    };

    // SessionEvents
    void on_session_ended(Session& session) override;
    void on_memory_exceeded() override;
    // Deferred: destroys the sessions that have ended.
    void before_sleep() override;

    Listener* find_listener(const std::string& address);
    Listener* find_listener(uint64_t number);
    enum class Accepted { One, NoneLeft, Failed };
    Accepted accept_one(Listener& listener, int from);
    void accept_all(Listener& listener, int from);
    void accept_some(Listener& listener);
    void refuse_clients(Listener& listener);
    void mend_socket(Listener& listener);
    void watch(Listener& listener);
    bool is_admitted(const Listener& listener, int fd);
    void admit(Listener& listener, int fd);
    void welcome(Listener& listener, int fd, uint64_t id);
    void log_refused_peer(const Listener& listener, int fd);
    void want_clients(FdEvents events);
    void apply_rules(Listener& listener);
    void pause_accepting();
    // client_server_memory.cc
    void watch_memory();
    void close_while_full();
    uint64_t clients_bytes() const;
    std::vector<Session*> largest_first() const;
    void close_for_memory(Session& session);

    Loop& loop_;
    Metrics& metrics_;
    Log& log_;
    std::span<char> scratch_;
    const LimitOptions& limits_;
    int client_fds_end_ = 0;
    const size_t loops_;
    ClientExchange* const exchange_;
    SessionContext context_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::unordered_map<uint64_t, Client> clients_;  // by their session's id
    std::vector<uint64_t> ended_;
    uint64_t next_id_ = 1;
    uint64_t listeners_opened_ = 0;
    uint64_t clients_elsewhere_ = 0;
    Timer accept_timer_;
    Timer memory_timer_;
    uint64_t memory_looked_ms_ = 0;
    uint64_t memory_seen_ = 0;  // the bytes held at that look
    std::function<void()> drained_;
};

}  // namespace nearkey
