#include "nearkey/session/shared_route.h"

#include "nearkey/session/spread_route.h"

#include <algorithm>
#include <utility>

namespace nearkey {

Executed SharedRoute::forward(const Call& call) {
    if (desk_.is_placed) return forward_placed(call);
    if (const auto executed = pin(call.spec(), 1)) return *executed;
    desk_.send(call, call.plan.kind, {*node_, *connection_, true});
    return Executed::Yes;
}

Executed SharedRoute::forward_placed(const Call& call) {
    if (desk_.context.cluster != nullptr) {
        if (const auto executed = SpreadRoute(desk_, *this).forward(call)) return *executed;
        if (desk_.terms.reads_replicas) {
            if (const auto executed = read_at_replica(call)) return *executed;
        }
    }
    Node* node = nullptr;
    if (const auto executed = desk_.place(call, node)) return *executed;
    if (const auto executed = pin_to(*node, call.spec())) return *executed;
    desk_.send(call, call.plan.kind, {*node_, *connection_, true});
    return Executed::Yes;
}

// Nothing: a primary is asked.
std::optional<Executed> SharedRoute::read_at_replica(const Call& call) {
    if (lease_) return std::nullopt;
    if (replica_ == nullptr) replica_ = std::make_unique<ReplicaRoute>(desk_);
    return replica_->forward(call);
}

std::optional<Executed> SharedRoute::scan(const Call& call) {
    if (scan_ == nullptr) scan_ = std::make_unique<ClusterScan>(desk_, *this);
    return scan_->forward(call);
}

void SharedRoute::turn_to(Node& node) {
    if (&node == node_) return;
    if (connection_ != nullptr) others_.push_back({node_, connection_});
    node_ = &node;
    connection_ = nullptr;
    const auto found = std::find_if(others_.begin(), others_.end(),
                                    [&](const Pin& pin) { return pin.node == &node; });
    if (found == others_.end()) return;
    connection_ = found->connection;
    *found = others_.back();
    others_.pop_back();
}

std::optional<Executed> SharedRoute::pin_anew(const CommandSpec* spec, size_t commands) {
    if (lease_) {
        if (desk_.owed() > 0) return desk_.wait_until_idle();
        // The command was to go over it when it began to wait.
        lease_.forget_waiting();
        lease_.end();
    }
    if (connection_ != nullptr && connection_->is_leaving()) {
        if (desk_.owed() > 0) return desk_.wait_until_idle();
        release();
    }
    if (desk_.owed() == 0) leave_slow(spec);
    const ClientState& client = desk_.client;
    if (connection_ == nullptr && !client.is_database_unsure) {
        connection_ = node_->shared().acquire(client.protocol, client.database);
    }
    if (connection_ != nullptr && !client.is_database_unsure) return std::nullopt;
    for (size_t i = 0; i < commands; ++i)
        desk_.answer_error(spec, client.is_database_unsure ? kDatabaseUnsure : kNoConnectionLeft);
    return Executed::Yes;
}

Connection* SharedRoute::begin_selecting(int database) {
    connection_ = node_->shared().acquire(desk_.client.protocol, database);
    if (connection_ != nullptr) selecting_ = database;
    return connection_;
}

void SharedRoute::leave_slow(const CommandSpec* spec) {
    const ClientState& client = desk_.client;
    const bool waits = spec != nullptr && spec->waits_in_pause && !client.is_database_unsure;
    if (waits && node_->shared().may_hold_writes()) {
        Connection* const held_up = node_->shared().find_held_up(client.protocol, client.database);
        if (held_up != nullptr) {
            if (connection_ != nullptr) forget_fills();
            node_->shared().change(connection_, *held_up);
            return;
        }
    }
    if (connection_ == nullptr) return;
    if (connection_->in_flight().is_congested() || connection_->in_flight().is_held_up()) release();
}

void SharedRoute::leave(const ReplyReceiver& receiver) {
    // What was sent on is owed over connections that it was never pinned to.
    if (desk_.context.cluster != nullptr && desk_.owed() > 0) {
        desk_.context.cluster->forget(receiver);
    }
    while (connection_ != nullptr || !others_.empty()) {
        if (connection_ == nullptr) {
            turn_to(*others_.back().node);
            continue;
        }
        if (scan_ != nullptr) scan_->forget(*connection_);
        if (desk_.owed() > 0) {
            connection_->forget(receiver);
            desk_.ledger.forget(*connection_);
        }
        release();
    }
    // Without a connection nothing keeps a node of a cluster.
    node_ = &desk_.context.node;
}

// In a cluster a read may have gone to another node without its PTTL.
void SharedRoute::forget_fills() {
    if (desk_.context.cluster != nullptr) desk_.ledger.forget(*connection_);
}

void SharedRoute::release() {
    forget_fills();
    node_->shared().release(*std::exchange(connection_, nullptr));
}

// A session that is owed reads alone need not wait behind a command that the server keeps waiting
// (CLIENT PAUSE WRITE). Each reply waits for its own proof, as with any other connection of the
// kind; nothing is stored, since the PTTLs went over the former one.
void SharedRoute::pass_held_up(ReplyReceiver& receiver) {
    // It may be owed something by another node, too.
    if (desk_.context.cluster != nullptr) return;
    const int database = is_selecting() ? selecting_ : desk_.client.database;
    Connection* const next = node_->shared().find_for_reads(desk_.client.protocol, database);
    if (next == nullptr) return;
    connection_->pipeline().pass(receiver, next->pipeline());
    desk_.ledger.forget(*connection_);
    node_->shared().change(connection_, *next);
}

}  // namespace nearkey
