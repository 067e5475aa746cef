// Dedicated connections: who gets one, who waits for one, which are kept for the next.
#include "nearkey/upstream/pool.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <utility>

namespace nearkey {

Connection* ConnectionPool::lease(const LeaseWish& wish, LeaseWaiter& waiter) {
    if (!may_lease(waiter)) return nullptr;
    const auto idle = wish.credentials == nullptr ? find_idle_lease(wish) : idle_leases_.end();
    if (idle != idle_leases_.end()) {
        leased_.push_back(std::move(*idle));
        idle_leases_.erase(idle);
    } else {
        leased_.push_back(std::make_unique<Connection>(context_, wish.protocol, wish.database));
        if (wish.credentials != nullptr) leased_.back()->use_credentials(*wish.credentials);
    }
    metrics_.upstream_dedicated_leased = leased_.size();
    leased_.back()->users = 1;
    leased_.back()->is_leased = true;
    return leased_.back().get();
}

// Of two that will do, the one whose client was of the same kind needs no new name.
ConnectionPool::Connections::iterator ConnectionPool::find_idle_lease(const LeaseWish& wish) {
    const auto fits = [&](const auto& connection) {
        return connection->is_ready() && !connection->is_doubtful() &&
               connection->protocol() == wish.protocol && connection->database() == wish.database;
    };
    const auto same = std::find_if(
        idle_leases_.begin(), idle_leases_.end(),
        [&](const auto& lease) { return fits(lease) && lease->identity == wish.identity; });
    if (same != idle_leases_.end()) return same;
    return std::find_if(idle_leases_.begin(), idle_leases_.end(), fits);
}

bool ConnectionPool::has_free_lease() const {
    return leased_.size() + leases_granted_ < options_.dedicated_max;
}

bool ConnectionPool::prefetch_lease(const LeaseWish& wish) {
    if (!has_free_lease()) return false;
    if (find_idle_lease(wish) != idle_leases_.end()) return true;
    const bool is_on_its_way =
        std::any_of(idle_leases_.begin(), idle_leases_.end(), [&](const auto& lease) {
            return lease->state() != ConnectionState::Closed && !lease->is_retired() &&
                   lease->protocol() == wish.protocol && lease->database() == wish.database;
        });
    if (is_on_its_way || options_.dedicated_idle_max == 0) return false;
    idle_leases_.push_back(std::make_unique<Connection>(context_, wish.protocol, wish.database));
    Connection& connection = *idle_leases_.back();
    connection.is_leased = true;  // Until it is ready: what it reads is not tracked.
    connection.unused_since_ms = loop_.now_ms();
    on_wants_dial(connection);
    close_surplus_leases();
    return false;
}

bool ConnectionPool::may_lease(LeaseWaiter& waiter) {
    const auto mine = std::find_if(lease_queue_.begin(), lease_queue_.end(),
                                   [&](const auto& queued) { return queued.waiter == &waiter; });
    if (mine != lease_queue_.end()) {
        if (!mine->is_granted) return false;
        --leases_granted_;
        lease_queue_.erase(mine);
        return true;
    }
    if (has_free_lease()) return true;
    lease_queue_.push_back({&waiter, loop_.now_ms() + options_.queue_timeout_ms, false});
    ++metrics_.upstream_dedicated_waits_total;
    watch();
    return false;
}

void ConnectionPool::grant_leases() {
    for (QueuedLease& queued : lease_queue_) {
        if (!has_free_lease()) return;
        if (queued.is_granted) continue;
        queued.is_granted = true;
        ++leases_granted_;
        queued.waiter->on_lease_possible();
    }
}

void ConnectionPool::stop_waiting(const LeaseWaiter& waiter) {
    const auto mine = std::find_if(lease_queue_.begin(), lease_queue_.end(),
                                   [&](const auto& queued) { return queued.waiter == &waiter; });
    if (mine == lease_queue_.end()) return;
    if (mine->is_granted) --leases_granted_;
    lease_queue_.erase(mine);
    grant_leases();
}

void ConnectionPool::expire_lease_queue(uint64_t now_ms) {
    std::erase_if(lease_queue_, [&](const QueuedLease& queued) {
        if (queued.is_granted || queued.deadline_ms > now_ms) return false;
        ++metrics_.upstream_dedicated_refused_total;
        queued.waiter->on_lease_refused();
        return true;
    });
}

void ConnectionPool::give_back(Connection& connection, LeaseEnd end) {
    const auto found = std::find_if(leased_.begin(), leased_.end(), [&](const auto& candidate) {
        return candidate.get() == &connection;
    });
    CHECK(found != leased_.end());
    connection.users = 0;
    connection.is_leased = false;
    connection.unused_since_ms = loop_.now_ms();
    connection.set_owner(nullptr);
    const bool is_kept = end != LeaseEnd::Dirty && connection.is_ready() && connection.is_idle() &&
                         !connection.is_retired();
    idle_leases_.push_back(std::move(*found));
    leased_.erase(found);
    metrics_.upstream_dedicated_leased = leased_.size();
    if (!is_kept) connection.close("the client has gone");
    if (is_kept && end == LeaseEnd::Doubtful) connection.challenge();
    close_surplus_leases();
    defer();
    grant_leases();
}

// The oldest go first. What is closed already waits in the list to be destroyed.
void ConnectionPool::close_surplus_leases() {
    const auto is_open = [](const auto& lease) {
        return lease->state() != ConnectionState::Closed;
    };
    auto open =
        static_cast<size_t>(std::count_if(idle_leases_.begin(), idle_leases_.end(), is_open));
    for (auto& lease : idle_leases_) {
        if (open <= options_.dedicated_idle_max) return;
        if (!is_open(lease)) continue;
        lease->close("unused");
        --open;
    }
}

}  // namespace nearkey
