// What the pool and its connections keep for the next requests, given back.
#include "nearkey/upstream/pool.h"

namespace nearkey {

void Connection::shrink() {
    in_flight_.shrink();
    if (socket_ != nullptr) socket_->shrink();
}

void ConnectionPool::shrink() {
    const auto shrink_all = [](const Connections& connections) {
        for (const auto& connection : connections)
            connection->shrink();
    };
    for (const auto& [key, group] : shared_)
        shrink_all(group);
    shrink_all(leased_);
    shrink_all(idle_leases_);
    shrink_all(retired_);
    if (receiver_ != nullptr) receiver_->shrink();
    proofs_.shrink();
}

}  // namespace nearkey
