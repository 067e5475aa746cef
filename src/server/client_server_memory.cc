// What happens when clients make nearkey hold too much (MemoryBudget).
//
// Reading pauses for all of them at once, so that nothing more comes in; replies are taken by those
// who read, and Valkey takes what waits for it. Neither can be relied on: while too little is freed
// the largest client is closed once a second. Replies that are on their way can't be kept back from
// a connection that many share: as soon as limits.memory_max is exceeded, the largest clients are
// closed until it is not, and the rest of their replies is dropped when it comes.
//
// Only a client's own bytes count for that, so that nobody is closed for what others hold. What
// waits for Valkey on a connection that many share is nobody's: it ends with their requests' time.
#include "nearkey/server/client_server.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace nearkey {

namespace {
constexpr uint64_t kMemoryCheckMs = 20;
constexpr uint64_t kMemoryPatienceMs = 1000;
// Less than this part of all, freed in that time, is no progress.
constexpr uint64_t kProgressShare = 64;
// To close a client that holds less would free nothing.
constexpr size_t kWorthClosing = size_t{4} << 10;
}  // namespace

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

// What does not go by itself, with the requests that Valkey owes a reply.
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

// Those that it would help to close.
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

}  // namespace nearkey
