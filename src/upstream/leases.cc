#include "nearkey/upstream/leases.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace nearkey {

Connection* Leases::lease(const LeaseWish& wish, LeaseWaiter& waiter) {
    if (!may_lease(waiter)) return nullptr;
    const bool may_be_kept = wish.credentials == nullptr && !wish.is_fresh;
    const auto idle = may_be_kept ? find_idle(wish) : idle_.end();
    if (idle != idle_.end()) {
        leased_.push_back(std::move(*idle));
        idle_.erase(idle);
    } else {
        leased_.push_back(std::make_unique<Connection>(context_, wish.protocol, wish.database));
        if (wish.credentials != nullptr)
            leased_.back()->dialer().use_credentials(*wish.credentials);
    }
    ++context_.metrics.upstream_dedicated_leased;
    leased_.back()->use().add_user();
    leased_.back()->use().set_role(ConnectionUse::Role::Leased);
    return leased_.back().get();
}

// Prefers one whose client was of the same kind: that needs no new name.
Connections::iterator Leases::find_idle(const LeaseWish& wish) {
    const auto fits = [&](const auto& connection) {
        return connection->is_ready() && !connection->probe().is_doubtful() &&
               connection->protocol() == wish.protocol && connection->database() == wish.database;
    };
    const auto same = std::find_if(idle_.begin(), idle_.end(), [&](const auto& lease) {
        return fits(lease) && lease->use().identity() == wish.identity;
    });
    if (same != idle_.end()) return same;
    return std::find_if(idle_.begin(), idle_.end(), fits);
}

bool Leases::has_free_place() const {
    return leased_.size() + granted_ < context_.options.dedicated_max;
}

bool Leases::prefetch(const LeaseWish& wish) {
    if (!has_free_place()) return false;
    if (find_idle(wish) != idle_.end()) return true;
    const bool is_on_its_way = std::any_of(idle_.begin(), idle_.end(), [&](const auto& lease) {
        return is_open(lease) && !lease->is_retired() && lease->protocol() == wish.protocol &&
               lease->database() == wish.database;
    });
    if (is_on_its_way || context_.options.dedicated_idle_max == 0) return false;
    idle_.push_back(std::make_unique<Connection>(context_, wish.protocol, wish.database));
    Connection& connection = *idle_.back();
    // Until it is ready: its reads are not tracked.
    connection.use().set_role(ConnectionUse::Role::Leased);
    connection.use().note_unused(context_.loop.now_ms());
    context_.events.on_wants_dial(connection);
    close_surplus();
    return false;
}

bool Leases::may_lease(LeaseWaiter& waiter) {
    const auto mine = find_queued(waiter);
    if (mine != queue_.end()) {
        if (!mine->is_granted) return false;
        --granted_;
        queue_.erase(mine);
        return true;
    }
    if (has_free_place()) return true;
    const uint64_t deadline_ms = context_.loop.now_ms() + context_.options.queue_timeout_ms;
    queue_.push_back({&waiter, deadline_ms, false});
    ++context_.metrics.upstream_dedicated_waits_total;
    context_.watch();
    return false;
}

std::deque<Leases::Queued>::iterator Leases::find_queued(const LeaseWaiter& waiter) {
    return std::find_if(queue_.begin(), queue_.end(),
                        [&](const Queued& queued) { return queued.waiter == &waiter; });
}

void Leases::grant() {
    for (Queued& queued : queue_) {
        if (!has_free_place()) return;
        if (queued.is_granted) continue;
        queued.is_granted = true;
        ++granted_;
        queued.waiter->on_lease_possible();
    }
}

void Leases::stop_waiting(const LeaseWaiter& waiter) {
    const auto mine = find_queued(waiter);
    if (mine == queue_.end()) return;
    if (mine->is_granted) --granted_;
    queue_.erase(mine);
    grant();
}

void Leases::expire_queue(uint64_t now_ms) {
    std::erase_if(queue_, [&](const Queued& queued) {
        if (queued.is_granted || queued.deadline_ms > now_ms) return false;
        ++context_.metrics.upstream_dedicated_refused_total;
        queued.waiter->on_lease_refused();
        return true;
    });
}

void Leases::give_back(Connection& connection, LeaseEnd end) {
    const auto found = std::find_if(leased_.begin(), leased_.end(), [&](const auto& candidate) {
        return candidate.get() == &connection;
    });
    NEARKEY_CHECK(found != leased_.end());
    connection.use().remove_user(context_.loop.now_ms());
    connection.use().set_role(ConnectionUse::Role::Shared);
    connection.use().set_owner(nullptr);
    // A suspect connection that was leased was asked nothing, so nothing will let it go.
    const bool is_kept = end != LeaseEnd::Dirty && connection.is_ready() &&
                         connection.pipeline().is_idle() && !connection.pipeline().is_held_back() &&
                         !connection.is_retired();
    idle_.push_back(std::move(*found));
    leased_.erase(found);
    --context_.metrics.upstream_dedicated_leased;
    if (!is_kept) connection.close("the client has gone");
    if (is_kept && end == LeaseEnd::Doubtful) connection.probe().challenge();
    close_surplus();
    reaping_.defer();
    grant();
}

void Leases::apply_options() {
    close_surplus();
    grant();
}

void Leases::close_idle(const std::string& reason) {
    for (const auto& lease : idle_)
        lease->close(reason);
}

// Closes the oldest first. Closed ones wait in the list to be destroyed.
void Leases::close_surplus() {
    size_t open = count_open(idle_);
    for (const auto& lease : idle_) {
        if (open <= context_.options.dedicated_idle_max) return;
        if (!is_open(lease)) continue;
        lease->close("unused");
        --open;
    }
}

}  // namespace nearkey
