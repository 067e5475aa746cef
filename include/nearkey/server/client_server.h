// The listening sockets and the clients behind them.
// Owned by Daemon, destroyed before the pool. Owns every session; one that has ended is destroyed
// before the loop sleeps, never inside its own callback.
#pragma once

#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/session/session.h"

#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

namespace nearkey {

class ClientServer final : private SessionEvents, private Deferred {
public:
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        ConnectionPool& pool;
        std::span<char> scratch;  // for reading, shared by all clients
    };
    // Clients begin in `initial_database`.
    ClientServer(const Parts& parts, const LimitOptions& limits, int initial_database);
    ~ClientServer();

    struct Door {
        std::string address;
        int backlog;
        unsigned mode;
        CacheUse cache_use;  // of its clients
        // The same address, bound by somebody else already; null: we bind it.
        std::unique_ptr<ListenSocket> bound = nullptr;
    };
    // Throws ListenError. Clients can connect, and wait until start_accepting().
    void listen(Door door);
    void start_accepting();
    std::vector<const ListenSocket*> sockets() const;
    // Another process accepts from here on; `left` is called once no session is left.
    void leave_sockets(std::function<void()> left);
    // Accepts nobody any more, lets every session finish what it owes; `drained` is called once
    // none is left, at once or later.
    void drain(std::function<void()> drained);

private:
    struct Listener {
        std::unique_ptr<ListenSocket> socket;
        CacheUse cache_use;
        FdWatch watch;
        Listener(Loop& loop, Door door, std::function<void(int)> accept);
    };

    // SessionEvents
    void on_session_ended(Session& session) override;
    void on_memory_exceeded() override;
    // Deferred: destroys the sessions that have ended.
    void before_sleep() override;

    enum class Accepted { One, NoneLeft, Failed };
    Accepted accept_one(int listening_fd, CacheUse cache_use);
    void accept_some(int listening_fd, CacheUse cache_use);
    void accept_last();
    void welcome(int fd, CacheUse cache_use);
    void pause_accepting();
    void watch_memory();
    void close_largest();

    Loop& loop_;
    Metrics& metrics_;
    Log& log_;
    std::span<char> scratch_;
    const LimitOptions& limits_;
    SessionContext context_;
    std::vector<std::unique_ptr<Listener>> listeners_;
    std::unordered_map<uint64_t, std::unique_ptr<Session>> sessions_;
    std::vector<uint64_t> ended_;
    uint64_t next_id_ = 1;
    Timer accept_timer_;
    Timer memory_timer_;
    uint64_t memory_exceeded_since_ms_ = 0;
    uint64_t memory_seen_ = 0;
    std::function<void()> drained_;
};

}  // namespace nearkey
