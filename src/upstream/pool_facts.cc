// What is known of each connection, for the admin pages.
#include "nearkey/upstream/pool.h"

namespace nearkey {

namespace {

std::string_view name_of(ConnectionState state) {
    static constexpr std::string_view kNames[] = {"idle", "connecting", "handshaking", "ready",
                                                  "closed"};
    return kNames[static_cast<size_t>(state)];
}

}  // namespace

ConnectionFacts Connection::facts() {
    uint64_t tombstones = 0;
    for (size_t i = 0; i < in_flight_.size(); ++i)
        tombstones += in_flight_[i].receiver == nullptr ? 1 : 0;
    return {.kind = is_tunnel_  ? "tunnel"
                    : is_leased ? "dedicated"
                                : "shared",
            .state = name_of(state_),
            .protocol = protocol_,
            .database = database_,
            .address = address_,
            .server_id = is_ready() ? server_id : 0,
            .ready_ms = is_ready() ? ready_ms_ : 0,
            .proven_ms = proven_ms_,
            .sessions = users,
            .in_flight = in_flight_.size(),
            .tombstones = tombstones,
            .waiting = waiting_.size(),
            .bytes_sent = bytes_sent_,
            .bytes_received = bytes_received_,
            .is_tracked = source_ != NearCache::kNoSource};
}

ConnectionList ConnectionPool::list(size_t limit) const {
    ConnectionList list;
    const auto add = [&](Connection& connection, std::string_view kind) {
        if (++list.total > limit) return;
        list.connections.push_back(connection.facts());
        if (!kind.empty()) list.connections.back().kind = kind;
    };
    if (receiver_ != nullptr) add(*receiver_, "receiver");
    for (const auto& [key, connections] : shared_) {
        for (const auto& connection : connections)
            add(*connection, "");
    }
    for (const auto& connection : leased_)
        add(*connection, "");
    for (const auto& connection : idle_leases_)
        add(*connection, "idle");
    return list;
}

}  // namespace nearkey
