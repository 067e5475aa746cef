#include "nearkey/upstream/shared_connections.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kPassedForPause = 3;
constexpr uint64_t kReliefMs = 50;  // between two attempts at the same one

bool is_held_up(const std::unique_ptr<Connection>& connection) {
    return connection->in_flight().is_held_up();
}

bool is_free(const Connection& connection) {
    return connection.is_ready() && !connection.pipeline().is_held_back() &&
           !connection.pipeline().has_waiting() && !connection.in_flight().is_congested() &&
           !connection.in_flight().is_held_up();
}

size_t count_passed(const Connections& group) {
    return static_cast<size_t>(std::count_if(group.begin(), group.end(), [](const auto& each) {
        return each->in_flight().is_passed();
    }));
}
}  // namespace

void SharedConnections::start() {
    primary_ = acquire(Protocol::Resp2, context_.target->url.database);
    NEARKEY_CHECK(primary_ != nullptr);
    primary_->use().set_role(ConnectionUse::Role::Primary);
}

void SharedConnections::replace_primary(std::unique_ptr<Connection> next) {
    NEARKEY_CHECK(next->use().users() == 1);
    next->use().set_role(ConnectionUse::Role::Primary);
    Connection& former = *std::exchange(primary_, next.get());
    former.use().set_role(ConnectionUse::Role::Shared);
    release(former);
    Connections& group = groups_[{next->protocol(), next->database()}];
    add(group, std::move(next));
}

Connection& SharedConnections::add(Connections& group, std::unique_ptr<Connection> connection) {
    group.push_back(std::move(connection));
    is_crowded_ = is_crowded_ || group.size() > 1;
    return *group.back();
}

Connection* SharedConnections::acquire(Protocol protocol, int database) {
    Connections& group = groups_[{protocol, database}];
    // Nobody leaves one that waits at the server for one that may never be ready: the server may be
    // busy for everybody.
    const bool some_are_held_up = std::any_of(group.begin(), group.end(), is_held_up);
    const auto least =
        std::min_element(group.begin(), group.end(), [&](const auto& a, const auto& b) {
            const auto rank = [&](const Connection& connection) {
                return std::tuple(
                    connection.state() == ConnectionState::Closed,
                    some_are_held_up && !connection.is_ready(),
                    connection.in_flight().is_congested() || connection.in_flight().is_held_up(),
                    connection.use().users());
            };
            return rank(*a) < rank(*b);
        });
    const bool has_one = least != group.end() && is_open(*least);
    // One more than configured keeps others' commands from waiting behind a large reply.
    const bool is_congested = has_one && (*least)->in_flight().is_congested();
    const size_t wanted =
        some_are_held_up ? group.size() : context_.options.connections + (is_congested ? 1 : 0);
    if (has_one && (!(*least)->use().is_used() || group.size() >= wanted) &&
        !(is_congested && group.size() < wanted)) {
        (*least)->use().add_user();
        return least->get();
    }
    if (count() >= context_.options.connections_max && !close_least_needed()) {
        if (has_one) {
            (*least)->use().add_user();
            return least->get();
        }
        ++context_.metrics.upstream_shared_refused_total;
        return nullptr;
    }
    Connection& added = add(group, std::make_unique<Connection>(context_, protocol, database));
    added.use().add_user();
    return &added;
}

void SharedConnections::release(Connection& connection) {
    connection.use().remove_user(context_.loop.now_ms());
    if (connection.use().is_used()) return;
    if (connection.state() == ConnectionState::Closed) reaping_.defer();
}

Connection* SharedConnections::first(Protocol protocol, int database) {
    for (const auto& connection : groups_[{protocol, database}]) {
        if (!connection->is_leaving()) return connection.get();
    }
    Connection* const added = acquire(protocol, database);
    if (added != nullptr) release(*added);
    return added;
}

Connection* SharedConnections::first_ready(Protocol protocol, int database) {
    Connection* const connection = first(protocol, database);
    if (connection == nullptr) return nullptr;
    connection->use().note_unused(context_.loop.now_ms());
    if (connection->state() == ConnectionState::Idle) context_.events.on_wants_dial(*connection);
    return connection->is_ready() ? connection : nullptr;
}

void SharedConnections::change(Connection*& used, Connection& next) {
    next.use().add_user();
    Connection* const former = std::exchange(used, &next);
    if (former != nullptr) release(*former);
}

const Connections* SharedConnections::find_group(Protocol protocol, int database) const {
    const auto found = groups_.find({protocol, database});
    return found == groups_.end() ? nullptr : &found->second;
}

Connection* SharedConnections::find_ready(Protocol protocol, int database) const {
    return find_in(protocol, database, is_free);
}

// A write that was sent a moment ago may be held up as well, and what has passed once stays.
Connection* SharedConnections::find_for_reads(Protocol protocol, int database) const {
    return find_in(protocol, database, [](const Connection& connection) {
        return is_free(connection) && connection.in_flight().owes_reads_alone();
    });
}

Connection* SharedConnections::find_in(Protocol protocol, int database,
                                       bool (*suits)(const Connection&)) const {
    const Connections* const group = find_group(protocol, database);
    if (group == nullptr) return nullptr;
    const auto found = std::find_if(group->begin(), group->end(),
                                    [&](const auto& connection) { return suits(*connection); });
    return found == group->end() ? nullptr : found->get();
}

size_t SharedConnections::count() const {
    size_t count = 0;
    for (const auto& [key, group] : groups_)
        count += count_open(group);
    return count;
}

// A place is made for another database or protocol: the connection that has been unused for longest
// goes. False: all are used.
bool SharedConnections::close_least_needed() {
    Connection* least = nullptr;
    for_each([&](Connection& connection) {
        const bool is_unneeded = !connection.use().is_used() && connection.owes_nobody() &&
                                 connection.state() != ConnectionState::Closed;
        if (!is_unneeded) return;
        if (least == nullptr ||
            connection.use().unused_since_ms() < least->use().unused_since_ms()) {
            least = &connection;
        }
    });
    if (least == nullptr) return false;
    least->close("its place is needed");
    return true;
}

// --- held up ---

// Where all are held up, one more is connected; the next one not before that one is held up as
// well. A server that is busy for everybody answers no handshake, so it is given one; one that
// keeps these waiting on purpose (CLIENT PAUSE WRITE), as many as it takes.
void SharedConnections::relieve_held_up() {
    const uint64_t now_ms = context_.loop.now_ms();
    may_hold_writes_ = false;
    for (auto& [key, group] : groups_) {
        may_hold_writes_ = may_hold_writes_ || count_passed(group) >= kPassedForPause;
        if (std::none_of(group.begin(), group.end(), is_held_up)) continue;
        const bool some_go_on = std::any_of(group.begin(), group.end(), [](const auto& each) {
            return each->is_ready() && !is_held_up(each);
        });
        if (some_go_on) {
            look_past_held_up(group);
            continue;
        }
        const auto next = std::find_if(group.begin(), group.end(), [](const auto& each) {
            return is_open(each) && !each->is_ready();
        });
        const bool is_new = next == group.end();
        if (is_new && count() >= context_.options.connections_max) continue;
        Connection& relief =
            is_new ? add(group, std::make_unique<Connection>(context_, key.first, key.second))
                   : **next;
        const bool is_due = now_ms >= relief.use().unused_since_ms() + kReliefMs;
        if (relief.state() != ConnectionState::Idle || !is_due) continue;
        relief.use().note_unused(now_ms);
        context_.events.on_wants_dial(relief);
    }
}

// Requests behind a head that waits may go another way, if the server goes on answering there: each
// tick asks whether it does.
void SharedConnections::look_past_held_up(const Connections& group) {
    uint64_t asked_before_boot_ms = 0;
    for (const auto& each : group) {
        if (each->in_flight().is_held_up()) continue;
        asked_before_boot_ms = std::max(asked_before_boot_ms, each->probe().proven_before_ms());
        each->probe().send_heartbeat();
    }
    for (const auto& each : group) {
        if (!each->in_flight().is_held_up()) continue;
        each->pipeline().tell_held_up(context_.loop.now_ms(), asked_before_boot_ms);
    }
}

Connection* SharedConnections::find_held_up(Protocol protocol, int database) const {
    const Connections* const group = find_group(protocol, database);
    if (group == nullptr || count_passed(*group) < kPassedForPause) return nullptr;
    Connection* least = nullptr;
    for (const auto& each : *group) {
        if (!each->in_flight().is_passed()) continue;
        if (least == nullptr || each->use().users() < least->use().users()) least = each.get();
    }
    return least;
}

// --- the end ---

void SharedConnections::set_apart_retired(Connections& retired) {
    for (auto& [key, group] : groups_) {
        for (auto& connection : group) {
            if (connection->is_retired()) retired.push_back(std::move(connection));
        }
        std::erase(group, nullptr);
    }
}

void SharedConnections::reap() {
    for (auto& [key, group] : groups_)
        erase_closed(group);
    std::erase_if(groups_, [](const auto& group) { return group.second.empty(); });
    is_crowded_ = std::any_of(groups_.begin(), groups_.end(),
                              [](const auto& group) { return group.second.size() > 1; });
}

}  // namespace nearkey
