#include "nearkey/server/client_server.h"

#include "nearkey/base/check.h"
#include "nearkey/loop/socket_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

namespace nearkey {

namespace {

constexpr uint64_t kMemoryCheckMs = 20;
constexpr uint64_t kMemoryPatienceMs = 1000;
// Freeing less than this part of all in that time is no progress.
constexpr uint64_t kProgressShare = 64;
// Closing a client that holds less would free nothing.
constexpr size_t kWorthClosing = size_t{4} << 10;
constexpr size_t kListedMax = 20;
constexpr int kAcceptsPerTurn = 64;
constexpr uint64_t kAcceptAgainMs = 100;
// Descriptors that clients leave to connections to Valkey, the admin server, a reload and an
// upgrade: without them no lost connection could be replaced.
constexpr rlim_t kKeptFdsMax = 64;
constexpr rlim_t kKeptFdsShare = 4;  // no more than a fourth of all

// The first descriptor that is not for clients.
int find_client_fds_end() {
    rlimit limit{};
    const bool is_bounded = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX;
    if (!is_bounded) return INT_MAX;
    const rlim_t kept = std::min(kKeptFdsMax, limit.rlim_cur / kKeptFdsShare);
    return static_cast<int>(limit.rlim_cur - kept);
}

// The last word to a client that is not let in.
void turn_away(int fd, std::string_view error) {
    // It need not arrive.
    [[maybe_unused]] const ssize_t sent = send(fd, error.data(), error.size(), MSG_NOSIGNAL);
    close(fd);
}

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (size_t i = 0; i < names.size() && i < kListedMax; ++i)
        text += (text.empty() ? "" : " ") + names[i];
    if (names.size() > kListedMax) {
        text += " and " + std::to_string(names.size() - kListedMax) + " more";
    }
    return text;
}

}  // namespace

ClientServer::Listener::Listener(ClientServer& server, Door opened)
    : address(opened.address),
      peers(std::move(opened.peers)),
      rules(std::move(opened.rules)),
      terms(std::move(opened.terms)),
      is_checked(opened.is_elsewhere) {
    if (opened.is_elsewhere) return;
    socket = opened.bound != nullptr
                 ? std::move(opened.bound)
                 : std::make_unique<ListenSocket>(address, opened.backlog, opened.file);
    watch = watch_socket(server);
}

std::unique_ptr<FdWatch> ClientServer::Listener::watch_socket(ClientServer& server) {
    return std::make_unique<FdWatch>(server.loop_, socket->fd(),
                                     [this, &server](FdEvents) { server.accept_some(*this); });
}

void ClientServer::Listener::change(Door to) {
    NEARKEY_CHECK(is_open);
    if (socket != nullptr) {
        socket->set_backlog(to.backlog);
        socket->set_mode(to.file.mode);
        is_checked = is_checked && rules == to.rules;
    }
    peers = std::move(to.peers);
    rules = std::move(to.rules);
    terms = std::move(to.terms);
}

// Its clients' terms stay as they are, but for what only those are given who may connect.
void ClientServer::Listener::close() {
    is_open = false;
    terms.shared_memory = false;
    watch.reset();
    socket.reset();
}

ClientServer::ClientServer(const Parts& parts, const LimitOptions& limits)
    : Deferred(parts.loop, Phase::Reap),
      loop_(parts.loop),
      metrics_(parts.metrics),
      log_(parts.log),
      scratch_(parts.scratch),
      limits_(limits),
      loops_(parts.loops),
      exchange_(parts.exchange),
      context_{.loop = parts.loop,
               .limits = limits,
               .metrics = parts.metrics,
               .log = parts.log,
               .node = parts.node,
               .events = *this,
               .encoded = {},
               .ledgers = {.node = parts.node,
                           .cluster = parts.cluster,
                           .cache = parts.node.cache(),
                           .own_writes = parts.own_writes,
                           .fill_loop = parts.fill_loop},
               .cluster = parts.cluster,
               .hot_keys = &parts.hot_keys,
               .slow_log = &parts.slow_log,
               .scripts = parts.scripts,
               .all = parts.loops > 1 ? &parts.all : nullptr,
               .segment = parts.segment},
      accept_timer_(parts.loop, [this] { start_accepting(); }),
      memory_timer_(parts.loop, [this] { watch_memory(); }) {
    parts.node.latency().set_slow_us(parts.slow_log.threshold_us());
    apply_limits();
}

ClientServer::~ClientServer() {
    for (auto& [id, client] : clients_)
        client.session->abort();
}

ClientServer::Listener* ClientServer::find_listener(const std::string& address) {
    const auto found = std::find_if(
        listeners_.begin(), listeners_.end(),
        [&](const auto& listener) { return listener->is_open && listener->address == address; });
    return found == listeners_.end() ? nullptr : found->get();
}

ClientServer::Listener* ClientServer::find_listener(uint64_t number) {
    const auto found =
        std::find_if(listeners_.begin(), listeners_.end(),
                     [&](const auto& listener) { return listener->number == number; });
    return found == listeners_.end() ? nullptr : found->get();
}

void ClientServer::open_doors(std::vector<Door> doors) {
    std::vector<std::unique_ptr<Listener>> opened;
    for (Door& door : doors) {
        if (find_listener(door.address) != nullptr) continue;
        opened.push_back(std::make_unique<Listener>(*this, std::move(door)));
    }
    // Nothing fails from here on.
    for (auto& listener : listeners_) {
        // One that was closed may have a successor of the same address.
        if (!listener->is_open) continue;
        const auto stays = std::find_if(doors.begin(), doors.end(), [&](const Door& door) {
            return door.address == listener->address;
        });
        if (stays != doors.end()) {
            listener->change(std::move(*stays));
        } else {
            if (listener->socket != nullptr) {
                log_.info("not_listening_any_more", {{"address", listener->address}});
            }
            listener->close();
        }
    }
    std::erase_if(listeners_, [](const auto& listener) {
        return !listener->is_open && listener->clients == 0;
    });
    for (auto& listener : opened) {
        if (listener->socket != nullptr) {
            log_.info("listening", {{"address", listener->address}});
        }
        listener->number = ++listeners_opened_;
        listeners_.push_back(std::move(listener));
    }
    on_commands_changed();
}

std::vector<const ListenSocket*> ClientServer::sockets() const {
    std::vector<const ListenSocket*> sockets;
    for (const auto& listener : listeners_) {
        if (listener->socket != nullptr) sockets.push_back(listener->socket.get());
    }
    return sockets;
}

void ClientServer::leave_sockets(std::function<void()> left) {
    accept_timer_.stop();
    for (auto& listener : listeners_) {
        listener->watch.reset();
        if (listener->socket != nullptr) listener->socket->leave();
        listener->close();
    }
    drained_ = std::move(left);
    defer();
}

void ClientServer::apply_limits() {
    context_.lookahead = CommandParser(static_cast<int64_t>(limits_.bulk_max));
    metrics_.clients_max = limits_.clients_max;
    metrics_.client_memory_max_bytes = limits_.memory_max;
    context_.memory.set_max(limits_.memory_max, context_.all, loops_);
    client_fds_end_ = find_client_fds_end();
}

void ClientServer::drain(std::function<void()> drained) {
    accept_timer_.stop();
    // Clients of a socket that goes with us may have sent commands: these are answered.
    for (auto& listener : listeners_) {
        if (listener->socket != nullptr) refuse_clients(*listener);
        listener->close();
    }
    drained_ = std::move(drained);
    for (auto& [id, client] : clients_)
        client.session->drain();
    defer();
}

ClientServer::Accepted ClientServer::accept_one(Listener& listener, int from) {
    const int fd = accept4(from, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        if (is_admitted(listener, fd)) admit(listener, fd);
        return Accepted::One;
    }
    if (errno == EAGAIN) return Accepted::NoneLeft;
    return errno == EINTR || errno == ECONNABORTED ? Accepted::One : Accepted::Failed;
}

void ClientServer::accept_some(Listener& listener) {
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
        switch (accept_one(listener, listener.socket->fd())) {
            case Accepted::One:
                break;
            case Accepted::NoneLeft:
                return;
            case Accepted::Failed:
                // Out of descriptors or memory: waiting clients stay in the backlog.
                pause_accepting();
                return;
        }
    }
}

// Clients that have connected are still accepted.
void ClientServer::refuse_clients(Listener& listener) {
    ListenSocket& socket = *listener.socket;
    if (!socket.is_ours() || socket.is_refusing()) return;
    accept_all(listener, socket.fd());
    listener.watch.reset();
    if (socket.refuse_more()) {
        accept_all(listener, socket.fd());
    } else {
        watch(listener);
    }
}

void ClientServer::accept_all(Listener& listener, int from) {
    while (accept_one(listener, from) == Accepted::One) {
    }
}

uint64_t ClientServer::mend_sockets(bool is_upstream_ready) {
    uint64_t lost = 0;
    for (auto& listener : listeners_) {
        if (listener->socket == nullptr) continue;
        const ListenSocket& socket = *listener->socket;
        const bool refuses = !is_upstream_ready && listener->terms.when_down == WhenDown::Close;
        if (refuses && (socket.is_refusing() || socket.may_listen_again())) {
            refuse_clients(*listener);
        } else {
            mend_socket(*listener);
        }
        if (listener->mender.is_lost()) ++lost;
    }
    return lost;
}

void ClientServer::mend_socket(Listener& listener) {
    ListenSocket& socket = *listener.socket;
    if (socket.is_refusing()) {
        if (listener.mender.listen_again(socket, log_)) watch(listener);
        return;
    }
    const int before = listener.mender.mend(socket, log_, metrics_);
    if (before < 0) return;
    accept_all(listener, before);
    listener.watch.reset();
    close(before);
    watch(listener);
}

void ClientServer::watch(Listener& listener) {
    listener.watch = listener.watch_socket(*this);
    listener.watch->want({!accept_timer_.is_active(), false});
}

// A client that is not admitted has had its last word.
bool ClientServer::is_admitted(const Listener& listener, int fd) {
    if (!listener.peers.admits(fd)) {
        ++metrics_.clients_refused_peer_total;
        log_refused_peer(listener, fd);
        turn_away(fd,
                  "-NOPERM this user may not connect to this socket of nearkey (allow_users, "
                  "allow_groups)\r\n");
        return false;
    }
    // As without us, where nobody listens then. The client came through a socket that others hold,
    // too, as systemd does: it can't refuse.
    const bool is_served =
        context_.cluster != nullptr ? context_.cluster->serves() : context_.node.health().is_ready;
    if (listener.terms.when_down == WhenDown::Close && !is_served) {
        ++metrics_.clients_refused_down_total;
        close(fd);
        return false;
    }
    // The kernel gives the lowest descriptor that is free, so as many are taken as its number says.
    if (clients_.size() + clients_elsewhere_ >= limits_.clients_max ||
        listener.clients >= listener.terms.limits.clients_max || fd >= client_fds_end_) {
        ++metrics_.clients_refused_full_total;
        turn_away(fd, "-ERR max number of clients reached\r\n");
        return false;
    }
    if (metrics_.memory_short != 0) {
        ++metrics_.clients_refused_memory_total;
        turn_away(fd, "-ERR nearkey has no memory left for another client (MemoryMax=)\r\n");
        return false;
    }
    if (!context_.memory.may_admit()) {
        ++metrics_.clients_refused_memory_total;
        turn_away(fd, "-ERR nearkey has no memory left for another client (limits.memory_max)\r\n");
        return false;
    }
    return true;
}

void ClientServer::log_refused_peer(const Listener& listener, int fd) {
    const Peer peer = peer_of(fd).value_or(Peer{});
    log_.warning("client_refused", {{"reason", "not among allow_users or allow_groups"},
                                    {"address", listener.address},
                                    {"uid", static_cast<int64_t>(peer.user)},
                                    {"gid", static_cast<int64_t>(peer.group)},
                                    {"pid", static_cast<int64_t>(peer.pid)}});
}

void ClientServer::admit(Listener& listener, int fd) {
    const uint64_t id = next_id_++;
    if (exchange_ != nullptr && exchange_->hand_over(listener.number, fd, id)) {
        ++listener.clients;
        ++clients_elsewhere_;
    } else {
        welcome(listener, fd, id);
    }
}

void ClientServer::take(uint64_t listener, int fd, uint64_t id) {
    Listener* const found = find_listener(listener);
    NEARKEY_CHECK(found != nullptr);  // It knows of the client where he was accepted.
    welcome(*found, fd, id);
}

void ClientServer::on_client_left(uint64_t listener) {
    --clients_elsewhere_;
    if (Listener* const found = find_listener(listener); found != nullptr) --found->clients;
}

void ClientServer::welcome(Listener& listener, int fd, uint64_t id) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // Fails on a Unix socket: no matter.
    ++metrics_.clients_accepted_total;
    auto owned = std::make_unique<Session>(context_, listener.terms, id);
    Session& session = *owned;
    clients_.emplace(id, Client{listener, std::move(owned)});
    session.attach(std::make_unique<SocketStream>(loop_, fd, scratch_, session));
    if (memory_timer_.is_active()) session.pause_for_memory();
    ++listener.clients;
    metrics_.clients = clients_.size();
}

void ClientServer::pause_accepting() {
    ++metrics_.accept_paused_total;
    want_clients({false, false});
    accept_timer_.start_once(kAcceptAgainMs);
}

void ClientServer::start_accepting() {
    for (auto& listener : listeners_) {
        if (listener->socket != nullptr) listener->socket->claim();
    }
    want_clients({true, false});
}

void ClientServer::want_clients(FdEvents events) {
    for (auto& listener : listeners_) {
        if (listener->watch != nullptr) listener->watch->want(events);
    }
}

void ClientServer::on_session_ended(Session& session) {
    ended_.push_back(session.id());
    defer();
}

void ClientServer::shrink() {
    for (auto& [id, client] : clients_)
        client.session->shrink();
    clients_.rehash(0);
    ended_.shrink_to_fit();
    context_.shrink();
}

// All clients' numbers are looked at, and no more of the clients than `limit`.
ClientList ClientServer::list(uint64_t after, size_t limit) const {
    std::vector<uint64_t> ids;
    ids.reserve(clients_.size());
    for (const auto& [id, client] : clients_) {
        if (id > after) ids.push_back(id);
    }
    const size_t count = std::min(limit, ids.size());
    const auto end = ids.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(ids.begin(), end, ids.end());
    ClientList list;
    list.total = clients_.size();
    if (count > 0 && count < ids.size()) list.next = ids[count - 1];
    for (auto id = ids.begin(); id != end; ++id)
        list.clients.push_back(clients_.at(*id).session->facts());
    return list;
}

// --- memory ---
//
// What happens when clients make nearkey hold too much (MemoryBudget).
//
// Reading pauses for all of them at once, so that nothing more comes in; clients that read take
// replies, and Valkey takes waiting requests. Neither can be relied on: while too little is freed
// the largest client is closed once a second. Replies that are on their way can't be kept back from
// a connection that many share: as soon as limits.memory_max is exceeded, the largest clients are
// closed until it is not, and the rest of their replies is dropped when it comes.
//
// Only a client's own bytes count for that, so that nobody is closed for others' memory. Requests
// that wait for Valkey on a shared connection are nobody's: they end with their time limit.

void ClientServer::on_memory_exceeded() {
    defer();
    if (memory_timer_.is_active()) return;
    memory_timer_.start_repeating(kMemoryCheckMs);
    memory_seen_ = context_.memory.held();
    memory_looked_ms_ = loop_.now_ms();
    ++metrics_.clients_paused_memory_total;
    for (auto& [id, client] : clients_)
        client.session->pause_for_memory();
}

void ClientServer::watch_memory() {
    if (context_.memory.may_resume()) {
        memory_timer_.stop();
        for (auto& [id, client] : clients_)
            client.session->resume_after_memory();
        return;
    }
    if (loop_.now_ms() < memory_looked_ms_ + kMemoryPatienceMs) return;
    memory_looked_ms_ = loop_.now_ms();
    const uint64_t before = memory_seen_;
    memory_seen_ = context_.memory.held();
    if (memory_seen_ + context_.memory.share() / kProgressShare <= before) return;
    if (!context_.memory.is_too_much(clients_bytes())) return;
    const std::vector<Session*> sessions = largest_first();
    if (!sessions.empty()) close_for_memory(*sessions.front());
}

// The memory that does not go by itself, with the requests that Valkey owes a reply.
uint64_t ClientServer::clients_bytes() const {
    uint64_t bytes = clients_.size() * MemoryBudget::kClientBytes;
    for (const auto& [id, client] : clients_)
        bytes += client.session->memory_bytes();
    return bytes;
}

void ClientServer::close_while_full() {
    if (!context_.memory.is_full()) return;
    const bool would_help = context_.memory.held() < context_.memory.share() + clients_bytes();
    if (!would_help) return;
    for (Session* session : largest_first()) {
        if (!context_.memory.is_full()) return;
        close_for_memory(*session);
    }
}

// The sessions that it would help to close.
std::vector<Session*> ClientServer::largest_first() const {
    std::vector<std::pair<size_t, Session*>> sizes;
    for (const auto& [id, client] : clients_) {
        const size_t size = client.session->memory_bytes();
        if (size >= kWorthClosing) sizes.emplace_back(size, client.session.get());
    }
    std::sort(sizes.rbegin(), sizes.rend());
    std::vector<Session*> sessions;
    for (const auto& [size, session] : sizes)
        sessions.push_back(session);
    return sessions;
}

void ClientServer::close_for_memory(Session& session) {
    ++metrics_.clients_closed_memory_total;
    log_.warning("client_closed_for_memory",
                 {{"session", static_cast<int64_t>(session.id())},
                  {"bytes", static_cast<int64_t>(session.memory_bytes())},
                  {"tag", session.tag()}});
    session.abort();
}

// --- command rules ---

void ClientServer::on_commands_changed() {
    for (auto& listener : listeners_)
        apply_rules(*listener);
}

// Logs once the rules that have no effect, or less than one would think.
void ClientServer::apply_rules(Listener& listener) {
    const CommandTable& table = context_.node.catalog().commands();
    listener.terms.access = CommandAccess(listener.rules, table);
    if (std::exchange(listener.is_checked, true)) return;
    std::vector<AccessRule> defaults;
    parse_access_rules(kDefaultCommands, defaults);
    const bool is_default = listener.rules == defaults;
    const std::string unknown = listed(find_unknown_names(listener.rules, table));
    // The default names what only some versions have.
    if (!unknown.empty() && !is_default) {
        log_.warning("rules_without_effect",
                     {{"address", listener.address},
                      {"reason", "this server has no such command or category"},
                      {"names", unknown}});
    }
    std::vector<std::string> open = find_open_to_scripts(listener.terms.access, table);
    if (!context_.node.catalog().is_cluster()) {
        std::erase_if(open, [](const std::string& name) { return name.starts_with("cluster|"); });
    }
    // docs/operations.md says it of the default.
    if (is_default) std::erase(open, "migrate");
    if (open.empty()) return;
    log_.warning("rules_do_not_hold_in_scripts",
                 {{"address", listener.address},
                  {"reason",
                   "a script runs with the rights of the user of upstream.url: refuse "
                   "@scripting as well, or take the rights from that user (ACL SETUSER)"},
                  {"commands", listed(open)}});
}

void ClientServer::before_sleep() {
    if (memory_timer_.is_active()) close_while_full();
    for (const uint64_t id : ended_) {
        const auto client = clients_.find(id);
        Listener& listener = client->second.listener;
        --listener.clients;
        if (exchange_ != nullptr) exchange_->on_client_ended(listener.number);
        clients_.erase(client);
    }
    ended_.clear();
    metrics_.clients = clients_.size();
    if (drained_ && clients_.empty()) std::exchange(drained_, nullptr)();
}

}  // namespace nearkey
