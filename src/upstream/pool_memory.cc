// What the pool and its connections keep for the next requests, given back.
#include "nearkey/upstream/pool.h"

namespace nearkey {

namespace {
constexpr size_t kSparseMin = size_t{16} << 10;
}  // namespace

void Connection::shrink() {
    in_flight_.shrink();
    if (socket_ != nullptr) socket_->shrink();
}

size_t Connection::memory_bytes() const {
    return counted_retained_ + (socket_ == nullptr ? 0 : socket_->memory_bytes());
}

// A burst's room is kept for the next one, unless it is much.
void Connection::shrink_if_sparse() {
    if (in_flight_.capacity() > kSparseMin && in_flight_.size() < in_flight_.capacity() / 4) {
        in_flight_.shrink();
    }
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
