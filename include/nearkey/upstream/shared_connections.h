// The shared connections, in groups of one protocol and database: pins each session to one, and
// finds ways past those that the server keeps waiting.
// Owned by NodeConnections. The primary is one of them from start() on, and is never closed; at
// most upstream.connections_max are open, unless a session needs the first of its group.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/connections.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace nearkey {

class SharedConnections final {
public:
    // `reaping` calls reap() after each connection that is closed. Both outlive this.
    SharedConnections(ConnectionContext& context, Deferred& reaping)
        : context_(context), reaping_(reaping) {}

    // Makes the primary, in the database of the target.
    void start();
    // The connection over which the server is asked what it is. REQUIRES: start().
    Connection& primary() const { return *primary_; }
    // The former primary is one like the others from now on. REQUIRES: used once.
    void replace_primary(std::unique_ptr<Connection> next);

    // The shared connection that a session of this protocol and database is pinned to until
    // release(). Null: upstream.connections_max is reached.
    Connection* acquire(Protocol protocol, int database);
    void release(Connection& connection);
    // The same connection as long as it is open, for requests of many sessions that keep their
    // order. Null: as with acquire().
    Connection* first(Protocol protocol, int database);
    // The same if it is ready; if not, null: it is dialled, and nothing waits for it.
    Connection* first_ready(Protocol protocol, int database);
    // Moves a session from the connection acquired, if any, to another of its kind.
    void change(Connection*& used, Connection& next);
    // A connection that takes a command of our own at once. Null: there is none.
    Connection* find_ready(Protocol protocol, int database) const;
    // The same where nothing but reads is on its way.
    Connection* find_for_reads(Protocol protocol, int database) const;
    // True if a group has more than one connection.
    bool is_crowded() const { return is_crowded_; }

    // True if the server seems to hold back writes (CLIENT PAUSE WRITE): it keeps at least three
    // connections of a kind waiting while it answers others.
    bool may_hold_writes() const { return may_hold_writes_; }
    // One of these connections, where a write waits as well as anywhere: on another one it would
    // only keep reads waiting. Null: there are none.
    Connection* find_held_up(Protocol protocol, int database) const;
    // Called with each tick: connects one more for new sessions where each of a group waits.
    void relieve_held_up();

    // Moves those that are retired to `retired`.
    void set_apart_retired(Connections& retired);
    void reap();

    // REQUIRES: the visit neither adds nor removes any.
    template <class Visit>
    void for_each(Visit visit) const;
    template <class Visit>
    void for_each(Protocol protocol, Visit visit) const;

private:
    using Key = std::pair<Protocol, int>;  // and database

    const Connections* find_group(Protocol protocol, int database) const;
    Connection* find_in(Protocol protocol, int database, bool (*suits)(const Connection&)) const;
    Connection& add(Connections& group, std::unique_ptr<Connection> connection);
    size_t count() const;
    [[nodiscard]] bool close_least_needed();
    void look_past_held_up(const Connections& group);

    ConnectionContext& context_;
    Deferred& reaping_;
    std::map<Key, Connections> groups_;
    Connection* primary_ = nullptr;
    bool is_crowded_ = false;
    bool may_hold_writes_ = false;  // since the last tick
};

template <class Visit>
void SharedConnections::for_each(Visit visit) const {
    for (const auto& [key, group] : groups_) {
        for (const auto& connection : group)
            visit(*connection);
    }
}

template <class Visit>
void SharedConnections::for_each(Protocol protocol, Visit visit) const {
    for_each([&](Connection& connection) {
        if (connection.protocol() == protocol) visit(connection);
    });
}

}  // namespace nearkey
