#include "nearkey/upstream/node_connections.h"

namespace nearkey {

namespace {
constexpr const char* kReplaced = "its upstream was replaced";
}  // namespace

void NodeConnections::make_receiver() {
    std::unique_ptr<Connection> former =
        std::exchange(receiver_, std::make_unique<Connection>(context_, Protocol::Resp3, 0));
    receiver_->use().add_user();
    context_.events.on_wants_dial(*receiver_);
    if (former != nullptr) discard(std::move(former), kReplaced);
}

void NodeConnections::drop_receiver() {
    if (receiver_ == nullptr) return;
    discard(std::exchange(receiver_, nullptr), "its server is a cluster's");
}

// --- a former server ---

void NodeConnections::drain(uint64_t leases_until_ms) {
    has_former_ = true;
    context_.watch();
    for_each([&](Connection& connection) {
        if (&connection == receiver_.get() || connection.use().is_primary()) return;
        drain(connection, connection.use().is_leased() ? leases_until_ms : UINT64_MAX);
    });
    shared_.set_apart_retired(retired_);
}

void NodeConnections::drain(Connection& connection, uint64_t until_ms) {
    if (connection.is_retired()) return;
    // Requests that are held back were never sent, either; a silent server answers nothing.
    if (!connection.is_ready() || connection.pipeline().is_held_back()) {
        redirect(connection);
        return;
    }
    connection.retire();
    connection.use().give_up_at(until_ms);
}

void NodeConnections::redirect(Connection& connection) {
    connection.redirect(*context_.target);
    if (connection.use().is_used() || connection.pipeline().has_waiting()) {
        context_.events.on_wants_dial(connection);
    }
}

// The former server's replies count no more: others may have changed the same keys elsewhere.
void NodeConnections::leave(uint64_t former_dials) {
    for_each([&](Connection& connection) {
        const bool is_new = &connection == receiver_.get() || connection.use().is_primary();
        if (connection.is_retired()) {
            connection.lose(kReplaced, ConnectionLoss::Socket);
        } else if (!is_new && connection.is_ready() &&
                   connection.dialer().number() > former_dials && leads_to_primary(connection)) {
            // RESP2 connections have another receiver from now on.
            if (connection.protocol() == Protocol::Resp2) connection.tracking().stop();
        } else if (!is_new) {
            redirect(connection);
        }
    });
}

// True if it was made anew after the server had become a replica, and reached another.
bool NodeConnections::leads_to_primary(const Connection& connection) const {
    return !connection.probe().is_replica() && connection.address() == shared_.primary().address();
}

void NodeConnections::note_retired() {
    if (!has_former_ || context_.retired > 0) return;
    has_former_ = false;
    context_.log.info("former_upstream_left", {});
}

// --- ticks ---

void NodeConnections::tick() {
    const uint64_t now_ms = context_.loop.now_ms();
    for_each([now_ms](Connection& connection) { connection.expire(now_ms); });
    close_unused();
    shared_.relieve_held_up();
    note_retired();
    leases_.expire_queue(now_ms);
}

bool NodeConnections::wants_ticks() {
    if (has_former_ || leases_.has_queue()) return true;
    bool wanted = false;
    for_each([&](Connection& connection) { wanted = wanted || connection.wants_expiry(); });
    return wanted;
}

// --- the end ---

bool NodeConnections::are_unused() {
    bool are_used = leases_.has_queue();
    for_each([&](const Connection& connection) {
        // The primary has a user that is none; so has the receiver.
        const bool is_kept = connection.use().is_primary() || &connection == receiver_.get();
        const size_t users = connection.use().users() - (is_kept ? 1 : 0);
        are_used = are_used || users > 0 || !connection.owes_nobody();
    });
    return !are_used;
}

void NodeConnections::discard(std::unique_ptr<Connection> connection, const std::string& reason) {
    if (connection->use().is_used()) connection->use().remove_user(context_.loop.now_ms());
    retired_.push_back(std::move(connection));
    retired_.back()->close(reason);
}

void NodeConnections::close_unused() {
    const uint64_t now_ms = context_.loop.now_ms();
    for_each([&](Connection& connection) {
        if (connection.is_retired()) close_retired(connection);
        const bool is_old =
            connection.use().unused_since_ms() + context_.options.idle_timeout_ms < now_ms;
        const bool is_dead = connection.state() == ConnectionState::Idle;
        const bool is_unused = !connection.use().is_used() && connection.pipeline().is_idle();
        if (is_unused && (is_old || is_dead)) connection.close("unused");
        if (connection.state() == ConnectionState::Closed && !connection.use().is_used()) defer();
    });
}

void NodeConnections::close_retired(Connection& connection) {
    if (!connection.use().is_leased() && connection.pipeline().is_idle()) {
        connection.close(kReplaced);
    } else if (connection.use().is_over(context_.loop.now_ms())) {
        connection.lose("its upstream was replaced (upstream.drain_timeout_ms)",
                        ConnectionLoss::Socket);
    }
}

void NodeConnections::close_all(const std::string& reason) {
    for_each([&](Connection& connection) { connection.close(reason); });
}

void NodeConnections::before_sleep() {
    shared_.reap();
    leases_.reap();
    erase_closed(retired_);
}

// --- what is known of them ---

ConnectionList NodeConnections::list(size_t limit) const {
    ConnectionList list;
    const auto add = [&](Connection& connection, std::string_view kind) {
        if (++list.total > limit) return;
        list.connections.push_back(connection.facts());
        if (!kind.empty()) list.connections.back().kind = kind;
    };
    if (receiver_ != nullptr) add(*receiver_, "receiver");
    shared_.for_each([&](Connection& connection) { add(connection, ""); });
    for (const auto& connection : leases_.leased())
        add(*connection, "");
    for (const auto& connection : leases_.idle())
        add(*connection, "idle");
    return list;
}

void NodeConnections::shrink() {
    for_each([](Connection& connection) { connection.pipeline().shrink(); });
}

}  // namespace nearkey
