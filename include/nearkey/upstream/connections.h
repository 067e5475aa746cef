// Lists of connections, each with one owner: Leases, SharedConnections or NodeConnections.
// A connection is taken off its list only when it is closed and no session uses it any more.
#pragma once

#include "nearkey/upstream/connection.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

namespace nearkey {

using Connections = std::vector<std::unique_ptr<Connection>>;

inline bool is_open(const std::unique_ptr<Connection>& connection) {
    return connection->state() != ConnectionState::Closed;
}

inline size_t count_open(const Connections& connections) {
    return static_cast<size_t>(std::count_if(connections.begin(), connections.end(), is_open));
}

// Destroys those that are closed and that no session uses.
inline void erase_closed(Connections& connections) {
    std::erase_if(connections, [](const std::unique_ptr<Connection>& connection) {
        return !is_open(connection) && !connection->use().is_used();
    });
}

}  // namespace nearkey
