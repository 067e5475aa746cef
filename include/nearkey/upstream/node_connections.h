// All connections to one server: the shared ones, the dedicated ones, the receiver of the near
// cache, and the rest of those to a former server.
// Owned by Node. A connection that is closed lives until the Reap phase, and as long as a
// session uses it.
#pragma once

#include "nearkey/upstream/facts.h"
#include "nearkey/upstream/leases.h"
#include "nearkey/upstream/shared_connections.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nearkey {

class NodeConnections final : private Deferred {
public:
    // `context` outlives it.
    explicit NodeConnections(ConnectionContext& context)
        : Deferred(context.loop, Phase::Reap),
          context_(context),
          shared_(context, *this),
          leases_(context, *this) {}

    SharedConnections& shared() { return shared_; }
    const SharedConnections& shared() const { return shared_; }
    Leases& leases() { return leases_; }
    // The connection that is told of changes for RESP2 connections, which can't be told themselves.
    // Null: there is no near cache, or the node is a cluster's seed.
    Connection* receiver() const { return receiver_.get(); }
    // A new one, in place of the former if there was one.
    void make_receiver();
    void drop_receiver();

    // The context's target and the primary are another server's from now on, and connections that
    // are not ready go there at once. Each other shared connection and lease answers the replies it
    // owes, and is let go by its users; a lease is given up when `leases_until_ms` is reached.
    void drain(uint64_t leases_until_ms);
    // Leaves at once: the former server is no primary any more. But connections that were made
    // after so many dials and lead to the new primary stay.
    void leave(uint64_t former_dials);
    // True if some still owe replies of a former server.
    bool has_former() const { return has_former_; }
    // No session uses any, and none is owed anything.
    bool are_unused();
    // Closes it for good.
    void discard(std::unique_ptr<Connection> connection, const std::string& reason);
    // Fails requests that are too old, connects more where the server keeps some waiting, and
    // closes connections that nobody uses, or that were retired and owe nothing.
    void tick();
    // A tick will have something to do.
    bool wants_ticks();
    void close_all(const std::string& reason);
    // One was closed: it is destroyed before the loop sleeps.
    void note_closed() { defer(); }

    // The first `limit` connections.
    ConnectionList list(size_t limit) const;
    // Gives back memory that was kept for a burst.
    void shrink();

    // The visit may give leases back: the lists change, but connections live until the Reap phase.
    template <class Visit>
    void for_each(Visit visit);

private:
    // Deferred
    void before_sleep() override;
    void drain(Connection& connection, uint64_t until_ms);
    void redirect(Connection& connection);
    bool leads_to_primary(const Connection& connection) const;
    void close_unused();
    void close_retired(Connection& connection);
    void note_retired();

    ConnectionContext& context_;
    SharedConnections shared_;
    Leases leases_;
    std::unique_ptr<Connection> receiver_;
    Connections retired_;  // shared ones to a former server, and discarded ones
    bool has_former_ = false;
    std::vector<Connection*> spare_visit_;  // empty; its memory is for the next visit
};

template <class Visit>
void NodeConnections::for_each(Visit visit) {
    std::vector<Connection*> all = std::exchange(spare_visit_, {});
    shared_.for_each([&all](Connection& connection) { all.push_back(&connection); });
    const Connections& retired = retired_;
    for (const Connections* connections : {&leases_.leased(), &leases_.idle(), &retired}) {
        for (const auto& connection : *connections)
            all.push_back(connection.get());
    }
    if (receiver_ != nullptr) all.push_back(receiver_.get());
    for (Connection* connection : all)
        visit(*connection);
    all.clear();
    spare_visit_ = std::move(all);
}

}  // namespace nearkey
