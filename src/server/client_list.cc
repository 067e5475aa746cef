#include "nearkey/server/client_server.h"

#include <algorithm>

namespace nearkey {

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

}  // namespace nearkey
