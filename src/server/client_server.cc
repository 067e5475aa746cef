#include "nearkey/server/client_server.h"

#include "nearkey/loop/socket_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

namespace nearkey {

namespace {

constexpr int kAcceptsPerTurn = 64;
constexpr uint64_t kAcceptAgainMs = 100;
constexpr uint64_t kMemoryCheckMs = 20;
// Pausing everybody can't free memory that half-sent commands hold: after this, the largest goes.
constexpr uint64_t kMemoryPatienceMs = 1000;

// The last word to a client that is not let in.
void turn_away(int fd, std::string_view error) {
    // Whether it arrives is the client's affair.
    [[maybe_unused]] const ssize_t sent = send(fd, error.data(), error.size(), MSG_NOSIGNAL);
    close(fd);
}

}  // namespace

ClientServer::Listener::Listener(Loop& loop, Door door, std::function<void(int)> accept)
    : socket(door.bound != nullptr
                 ? std::move(door.bound)
                 : std::make_unique<ListenSocket>(door.address, door.backlog, door.mode)),
      cache_use(door.cache_use),
      watch(loop, socket->fd(),
            [this, accept = std::move(accept)](FdEvents) { accept(socket->fd()); }) {
}

ClientServer::ClientServer(const Parts& parts, const LimitOptions& limits, int initial_database)
    : Deferred(parts.loop, Phase::Reap),
      loop_(parts.loop),
      metrics_(parts.metrics),
      log_(parts.log),
      scratch_(parts.scratch),
      limits_(limits),
      context_{.loop = parts.loop,
               .limits = limits,
               .metrics = parts.metrics,
               .log = parts.log,
               .pool = parts.pool,
               .initial_database = initial_database,
               .events = *this,
               .encoded = {},
               .cache = parts.pool.cache()},
      accept_timer_(parts.loop, [this] { start_accepting(); }),
      memory_timer_(parts.loop, [this] { watch_memory(); }) {
    metrics_.clients_max = limits_.clients_max;
    metrics_.client_memory_max_bytes = limits_.memory_max;
}

ClientServer::~ClientServer() {
    for (auto& [id, session] : sessions_)
        session->abort();
}

void ClientServer::listen(Door door) {
    const std::string address = door.address;
    const CacheUse use = door.cache_use;
    listeners_.push_back(std::make_unique<Listener>(loop_, std::move(door),
                                                    [this, use](int fd) { accept_some(fd, use); }));
    log_.info("listening", {{"address", address}});
}

std::vector<const ListenSocket*> ClientServer::sockets() const {
    std::vector<const ListenSocket*> sockets;
    for (const auto& listener : listeners_)
        sockets.push_back(listener->socket.get());
    return sockets;
}

void ClientServer::leave_sockets(std::function<void()> left) {
    accept_timer_.stop();
    for (auto& listener : listeners_) {
        listener->watch.want({false, false});
        listener->socket->leave();
    }
    listeners_.clear();
    drained_ = std::move(left);
    defer();
}

void ClientServer::drain(std::function<void()> drained) {
    accept_timer_.stop();
    accept_last();
    listeners_.clear();
    drained_ = std::move(drained);
    for (auto& [id, session] : sessions_)
        session->drain();
    defer();
}

ClientServer::Accepted ClientServer::accept_one(int listening_fd, CacheUse cache_use) {
    const int fd = accept4(listening_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        welcome(fd, cache_use);
        return Accepted::One;
    }
    if (errno == EAGAIN) return Accepted::NoneLeft;
    return errno == EINTR || errno == ECONNABORTED ? Accepted::One : Accepted::Failed;
}

void ClientServer::accept_some(int listening_fd, CacheUse cache_use) {
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
        switch (accept_one(listening_fd, cache_use)) {
            case Accepted::One:
                break;
            case Accepted::NoneLeft:
                return;
            case Accepted::Failed:
                // Out of descriptors or memory: those who wait stay in the backlog.
                pause_accepting();
                return;
        }
    }
}

// Who has connected to a socket that goes with us may have sent commands: they are answered.
void ClientServer::accept_last() {
    for (auto& listener : listeners_) {
        if (!listener->socket->refuse_more()) continue;
        while (accept_one(listener->socket->fd(), listener->cache_use) == Accepted::One) {
        }
    }
}

void ClientServer::welcome(int fd, CacheUse cache_use) {
    if (sessions_.size() >= limits_.clients_max) {
        ++metrics_.clients_refused_full_total;
        turn_away(fd, "-ERR max number of clients reached\r\n");
        return;
    }
    if (metrics_.client_memory_bytes > limits_.memory_max) {
        ++metrics_.clients_refused_memory_total;
        turn_away(fd, "-ERR nearkey has no memory left for another client (limits.memory_max)\r\n");
        return;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // Fails on a Unix socket: no matter.
    ++metrics_.clients_accepted_total;
    const uint64_t id = next_id_++;
    Session& session =
        *sessions_.emplace(id, std::make_unique<Session>(context_, id)).first->second;
    session.attach(std::make_unique<SocketStream>(loop_, fd, scratch_, session));
    session.set_cache_use(cache_use);
    metrics_.clients = sessions_.size();
}

void ClientServer::pause_accepting() {
    ++metrics_.accept_paused_total;
    for (auto& listener : listeners_)
        listener->watch.want({false, false});
    accept_timer_.start_once(kAcceptAgainMs);
}

void ClientServer::start_accepting() {
    for (auto& listener : listeners_)
        listener->watch.want({true, false});
}

void ClientServer::on_session_ended(Session& session) {
    ended_.push_back(session.id());
    defer();
}

void ClientServer::on_memory_exceeded() {
    if (memory_timer_.is_active()) return;
    memory_seen_ = metrics_.client_memory_bytes;
    memory_exceeded_since_ms_ = loop_.now_ms();
    memory_timer_.start_repeating(kMemoryCheckMs);
}

void ClientServer::watch_memory() {
    if (metrics_.client_memory_bytes + metrics_.upstream_unsent_bytes > limits_.memory_max) {
        // What waits for Valkey is not freed by closing a client.
        if (metrics_.client_memory_bytes <= limits_.memory_max) return;
        // As long as somebody takes replies, there is progress.
        if (metrics_.client_memory_bytes < memory_seen_) memory_exceeded_since_ms_ = loop_.now_ms();
        memory_seen_ = metrics_.client_memory_bytes;
        if (loop_.now_ms() < memory_exceeded_since_ms_ + kMemoryPatienceMs) return;
        memory_exceeded_since_ms_ = loop_.now_ms();
        close_largest();
        return;
    }
    memory_timer_.stop();
    for (auto& [id, session] : sessions_)
        session->resume_after_memory();
}

void ClientServer::close_largest() {
    const auto largest =
        std::max_element(sessions_.begin(), sessions_.end(), [](const auto& a, const auto& b) {
            return a.second->buffered_bytes() < b.second->buffered_bytes();
        });
    if (largest == sessions_.end()) return;
    ++metrics_.clients_closed_memory_total;
    log_.warning("client_closed_for_memory",
                 {{"session", static_cast<int64_t>(largest->first)},
                  {"bytes", static_cast<int64_t>(largest->second->buffered_bytes())}});
    largest->second->abort();
}

void ClientServer::before_sleep() {
    for (const uint64_t id : ended_)
        sessions_.erase(id);
    ended_.clear();
    metrics_.clients = sessions_.size();
    if (drained_ && sessions_.empty()) std::exchange(drained_, nullptr)();
}

}  // namespace nearkey
