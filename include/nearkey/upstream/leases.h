// Dedicated connections: leases to sessions, the queue of waiters, and the idle ones that are kept.
// Owned by NodeConnections. At most upstream.dedicated_max are leased or promised; a place is kept
// for a waiter that was told of it until it leases or stops waiting.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/connections.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

namespace nearkey {

// Waits for a dedicated connection. The calls must only schedule work.
class LeaseWaiter {
public:
    // One is free: ask again.
    virtual void on_lease_possible() = 0;
    // None became free within upstream.queue_timeout_ms.
    virtual void on_lease_refused() = 0;

protected:
    ~LeaseWaiter() = default;
};

struct LeaseWish {
    Protocol protocol;
    int database;
    const ClientIdentity& identity;  // preferred
    // Not null: the connection is a new one, set up as this user.
    const UpstreamCredentials* credentials = nullptr;
    bool is_fresh = false;  // none that was kept: it is dialled now
};

// The state in which a session leaves its lease.
enum class LeaseEnd : uint8_t {
    Clean,     // fit for the next
    Doubtful,  // fit once it has proven that nothing is left over of what was asked
    Dirty,
};

class Leases final {
public:
    // `reaping` calls reap() after each connection that is closed. Both outlive this.
    Leases(ConnectionContext& context, Deferred& reaping) : context_(context), reaping_(reaping) {}

    // A connection for one session alone. Null: upstream.dedicated_max is reached, and the waiter
    // is told later, unless it calls stop_waiting().
    Connection* lease(const LeaseWish& wish, LeaseWaiter& waiter);
    void stop_waiting(const LeaseWaiter& waiter);
    // True: lease() would give one that is ready. Else one is connected for later, if it may be.
    bool prefetch(const LeaseWish& wish);
    // A connection that is fit for it, is ready and owes nothing is kept for the next lease
    // (upstream.dedicated_idle_max). Every other one is closed.
    void give_back(Connection& connection, LeaseEnd end);

    // The limits may have changed.
    void apply_options();
    void expire_queue(uint64_t now_ms);
    bool has_queue() const { return !queue_.empty(); }
    void close_idle(const std::string& reason);
    void reap() { erase_closed(idle_); }

    const Connections& leased() const { return leased_; }
    // The oldest first.
    const Connections& idle() const { return idle_; }

private:
    struct Queued {
        LeaseWaiter* waiter;
        uint64_t deadline_ms;
        bool is_granted;  // a free place is kept for it
    };

    Connections::iterator find_idle(const LeaseWish& wish);
    bool has_free_place() const;
    bool may_lease(LeaseWaiter& waiter);
    std::deque<Queued>::iterator find_queued(const LeaseWaiter& waiter);
    void grant();
    void close_surplus();

    ConnectionContext& context_;
    Deferred& reaping_;
    Connections leased_;
    Connections idle_;
    std::deque<Queued> queue_;
    size_t granted_ = 0;
};

}  // namespace nearkey
