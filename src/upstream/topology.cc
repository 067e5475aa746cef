#include "nearkey/upstream/topology.h"

#include "nearkey/base/check.h"
#include "nearkey/upstream/node.h"

#include <utility>

namespace nearkey {

Topology::Topology(ConnectionContext& context, NodeConnections& connections, Node& node,
                   NodeEvents& events)
    : context_(context),
      connections_(connections),
      node_(node),
      events_(events),
      trial_timer_(context.loop, [this] { judge_trial(); }) {
}

// --- a primary that is none any more ---

bool Topology::is_due(uint64_t last_ms) const {
    const uint64_t now_ms = context_.loop.now_ms();
    const bool is_long_ago = last_ms == 0 || last_ms + context_.options.backoff_max_ms <= now_ms;
    return is_long_ago && tried_.connection == nullptr;
}

// The next heartbeat asks. A connection of a session's own may be in no state to be asked, and its
// script may say anything: the primary is asked in its place.
void Topology::doubt_role(Connection& connection) {
    if (!is_due(role_doubted_ms_)) return;
    Connection& asked = connection.use().is_leased() ? connections_.shared().primary() : connection;
    if (!asked.is_ready()) return;
    role_doubted_ms_ = context_.loop.now_ms();
    is_lease_doubted_ = connection.use().is_leased();
    is_role_wanted_ = true;
    asked.probe().send_heartbeat();
}

void Topology::note_role(const Connection& connection) {
    if (connection.probe().is_replica()) {
        if (is_demoted_ && had_primary_) tell_demoted();
        if (std::exchange(is_role_wanted_, false)) tell_demoted();
        return;
    }
    had_primary_ = true;
    is_demoted_ = is_role_wanted_ = false;
    if (!std::exchange(is_lease_doubted_, false)) return;
    // Other connections than that of the lease are to a primary.
    connections_.leases().close_idle("it may be to a replica");
}

// The server is not believed any more, and none of its replies is known to be true.
void Topology::note_demoted() {
    former_dials_ = context_.dials;
    if (context_.cache != nullptr) {
        context_.cache->clear(InvalidationCause::Lost, Loop::boot_ms());
    }
    is_role_wanted_ = is_lease_doubted_ = false;
    leave_replica();
    tell_demoted();
}

void Topology::tell_demoted() {
    if (!std::exchange(is_demoted_, true)) {
        context_.log.warning("upstream_demoted", {{"upstream", redacted(context_.target->url)},
                                                  {"what", "a replica, which refuses writes"}});
    }
    if (!is_due(demoted_told_ms_)) return;
    demoted_told_ms_ = context_.loop.now_ms();
    events_.on_demoted();
}

// Each shared connection is made anew: then the server there is known, and its role. Reads in
// flight go again.
void Topology::leave_replica() {
    is_leaving_replica_ = true;
    connections_.for_each([](Connection& connection) {
        if (connection.use().is_leased() || connection.is_retired() || !connection.is_ready())
            return;
        connection.lose("the server has become a replica", ConnectionLoss::Demoted);
    });
    is_leaving_replica_ = false;
}

void Topology::join_cluster(RedirectEvents& redirects) {
    context_.redirects = &redirects;
    context_.target->url.make_seed();
}

// --- another target ---

void Topology::begin_trial(std::unique_ptr<UpstreamTarget> target, Former former,
                           TargetEvents& events) {
    forget_target();
    UpstreamTarget& where = target != nullptr ? *target : *context_.target;
    auto connection = std::make_unique<Connection>(context_, Protocol::Resp2, where.url.database);
    connection->redirect(where);
    connection->use().add_user();
    connection->use().set_role(ConnectionUse::Role::Primary);
    tried_ = {.target = std::move(target), .connection = std::move(connection), .former = former};
    trial_events_ = &events;
    trial_deadline_ms_ = context_.loop.now_ms() + context_.options.connect_timeout_ms;
    trial_failure_.clear();
    is_proof_told_ = false;
    tried_.connection->dial();
}

void Topology::forget_target() {
    if (tried_.connection == nullptr) return;
    connections_.discard(take_tried().connection, "another upstream is not wanted");
}

Topology::Tried Topology::take_tried() {
    NEARKEY_CHECK(tried_.connection != nullptr);
    trial_timer_.stop();
    return std::exchange(tried_, {});
}

void Topology::note_tried_ready(const Value& hello) {
    tried_.hello = hello;
    trial_timer_.start_once(0);
}

// A name may have several addresses, and not each is served: it is dialled again.
void Topology::note_tried_failed(const std::string& reason) {
    trial_failure_ = reason;
    trial_timer_.start_once(context_.options.backoff_min_ms);
}

// Runs outside of the connection's own callbacks.
void Topology::judge_trial() {
    Connection& connection = *tried_.connection;
    if (connection.is_ready() && !connection.probe().pong().serves) {
        connection.lose(connection.probe().pong().refusal, ConnectionLoss::Socket);
    } else if (connection.is_ready()) {
        if (tried_.former == Former::IsNoPrimary && tried_.hello.text_of("role") != "master") {
            refuse_tried("a replica answers there");
            return;
        }
        if (is_cluster_unlooked_for()) {
            refuse_tried(
                "it is a node of a cluster, which needs a restart, or upstream.cluster = \"off\"");
            return;
        }
        if (!std::exchange(is_proof_told_, true)) trial_events_->on_target_proven();
    } else if (is_proof_told_ || context_.loop.now_ms() < trial_deadline_ms_) {
        connection.dial();
    } else {
        refuse_tried(std::string(trial_failure_));
    }
}

// What one server is made of can't become a cluster's while clients are there.
bool Topology::is_cluster_unlooked_for() const {
    return tried_.former == Former::Answers && tried_.hello.text_of("mode") == "cluster" &&
           context_.redirects == nullptr && !node_.catalog().is_cluster() &&
           context_.options.cluster == "auto";
}

// Once it has told of the proof, another loop's may have it adopted at any time: then it is dialled
// until it is, or is not wanted any more.
void Topology::refuse_tried(const std::string& reason) {
    if (is_proof_told_) {
        tried_.connection->lose(reason, ConnectionLoss::Socket);
        return;
    }
    TargetEvents& events = *trial_events_;
    forget_target();
    events.on_target_refused(reason);
}

void Topology::adopt_target() {
    Tried tried = take_tried();
    if (!tried.connection->is_ready()) {
        connections_.discard(std::move(tried.connection), "another upstream is not wanted");
        // If the target is ours, the next READONLY seeks again.
        if (tried.target != nullptr) turn_unproven(std::move(tried.target), tried.former);
        return;
    }
    is_demoted_ = is_role_wanted_ = is_lease_doubted_ = false;
    had_primary_ = !is_replica(tried.hello);
    node_.turn_to(std::move(tried), former_dials_);
}

void Topology::turn_unproven(std::unique_ptr<UpstreamTarget> target, Former former) {
    forget_target();
    auto primary = std::make_unique<Connection>(context_, Protocol::Resp2, target->url.database);
    primary->redirect(*target);
    primary->use().add_user();
    node_.turn_to({.target = std::move(target), .connection = std::move(primary), .former = former},
                  former_dials_);
}

}  // namespace nearkey
