#include "nearkey/upstream/node.h"

#include "nearkey/upstream/advice.h"

#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kTickMs = 20;

bool is_same_server(const UpstreamUrl& one, const UpstreamUrl& other) {
    return one.kind == other.kind && one.host == other.host && one.port == other.port &&
           one.path == other.path;
}

NodeCoherence::Role role_of(const Node::Parts& parts) {
    using Role = NodeCoherence::Role;
    if (parts.redirects == nullptr) return Role::OnlyServer;
    return parts.seed_catalog == nullptr ? Role::Seed : Role::Member;
}
}  // namespace

Node::Node(const Parts& parts, const UpstreamOptions& options,
           std::unique_ptr<UpstreamTarget> target)
    : target_(std::move(target)),
      events_(parts.events),
      reaper_(parts.loop),
      context_{.loop = parts.loop,
               .options = options,
               .target = target_.get(),
               .metrics = parts.metrics,
               .log = parts.log,
               .scratch = parts.scratch,
               .events = *this,
               .reaper = reaper_,
               .cache = parts.cache,
               .is_first = parts.is_first,
               .reads_replica = parts.reads_replica,
               .redirects = parts.redirects},
      connections_(context_),
      dials_(parts.loop, options, parts.backoff_seed),
      health_(context_, events_),
      suspicion_(context_, connections_, events_),
      catalog_(context_, events_, parts.seed_catalog == nullptr,
               [this](const std::string& refusal) { on_catalog(refusal); }),
      coherence_(context_, connections_,
                 parts.seed_catalog == nullptr ? catalog_ : *parts.seed_catalog, suspicion_,
                 {role_of(parts), parts.number}),
      topology_(context_, connections_, *this, events_),
      tick_timer_(parts.loop, [this] { tick(); }),
      heartbeat_timer_(parts.loop, [this] { beat(); }) {
    health_.set_beat_interval_ms(coherence_.beat_interval_ms());
}

Node::~Node() {
    is_stopping_ = true;
    coherence_.stop();
    topology_.forget_target();
    connections_.close_all("nearkey stops");
}

void Node::start() {
    health_.start();
    shared().start();
    dials_.want(shared().primary());
    coherence_.start();
    on_watch_wanted();
    heartbeat_timer_.start_repeating(coherence_.beat_interval_ms());
}

void Node::apply_options() {
    dials_.apply_options();
    leases().apply_options();
    coherence_.apply_options();
    adjust_beat();
}

void Node::bound_staleness(uint64_t max_staleness_ms) {
    coherence_.bound_staleness(max_staleness_ms);
    adjust_beat();
}

void Node::adjust_beat() {
    const uint64_t interval_ms = coherence_.beat_interval_ms();
    health_.set_beat_interval_ms(interval_ms);
    if (heartbeat_timer_.is_active()) heartbeat_timer_.start_repeating(interval_ms);
}

void Node::shrink() {
    connections_.shrink();
    coherence_.shrink();
}

// --- another server ---

void Node::set_access(UpstreamTarget& fresh) {
    UpstreamUrl& url = target_->url;
    const bool is_other = url.user != fresh.url.user || url.password != fresh.url.password;
    url.user = fresh.url.user;
    url.password = fresh.url.password;
    // In place: a connection that is being made still points to it.
    if (target_->tls != nullptr && fresh.tls != nullptr) *target_->tls = std::move(*fresh.tls);
    if (!is_other) return;
    // A token that is over ends the connections that did not say the next one.
    shared().for_each([&url](Connection& connection) {
        if (connection.is_ready()) connection.probe().say_password(url);
    });
    leases().close_idle("another password");
}

void Node::turn_to(Topology::Tried turn, uint64_t former_dials) {
    const bool is_proven = turn.connection->is_ready();
    // Until the end of this function: connections still point to it.
    const std::unique_ptr<UpstreamTarget> left =
        turn.target != nullptr ? std::exchange(target_, std::move(turn.target)) : nullptr;
    context_.target = target_.get();
    catalog_.drop_questions();
    catalog_.forget_databases();
    context_.failures.clear();
    shared().replace_primary(std::move(turn.connection));
    // First, for requests in flight may be retried, and answered, at once.
    coherence_.leave_former(turn.former);
    leave_connections(left.get(), turn.former, former_dials);
    coherence_.start();
    dials_.restart();
    if (!is_proven) {
        dials_.note_absent();
        dials_.want(shared().primary());
        if (context_.ready == 0) health_.note_turn();
        return;
    }
    Connection& primary = shared().primary();
    note_hello(turn.hello);
    suspicion_.end();
    primary.pipeline().let_go();
    dials_.note_ready(primary);
    health_.note_pong(primary.probe().pong());
    context_.heard_ms = context_.loop.now_ms();
    catalog_.note_database(primary.database());
    catalog_.ask(primary);
    coherence_.note_ready(primary);
    update_health();
}

// `left`: null if another server is behind the same target.
void Node::leave_connections(const UpstreamTarget* left, Former former, uint64_t former_dials) {
    leases().close_idle("its upstream was replaced");
    if (former == Former::IsNoPrimary) {
        connections_.leave(left == nullptr ? former_dials : UINT64_MAX);
    } else {
        // Behind the same name: a session's state on the former one stays, as without nearkey.
        const bool is_elsewhere = left != nullptr && !is_same_server(left->url, target_->url);
        connections_.drain(is_elsewhere ? context_.loop.now_ms() + options().drain_timeout_ms
                                        : UINT64_MAX);
    }
    connections_.note_closed();
}

// --- what happens to a connection ---

void Node::on_ready(Connection& connection, const Value& hello) {
    if (topology_.is_tried(connection)) {
        topology_.note_tried_ready(hello);
        return;
    }
    const bool is_primary = &connection == &shared().primary();
    dials_.note_ready(connection);
    // A failure of the primary is said once, however often another connection succeeds meanwhile.
    if (is_primary || catalog_.knows_commands()) context_.failures.clear();
    if (!connection.probe().is_replica()) topology_.note_primary();
    suspicion_.note_ready();
    note_hello(hello);
    catalog_.note_database(connection.database());
    health_.note_pong(connection.probe().pong());
    if (is_primary) {
        health_.note_asking();
        catalog_.ask(connection);
    }
    if (cache() != nullptr && !health_.is_loading()) cache()->drop_lost();
    coherence_.note_ready(connection);
    // A lease that nobody has taken yet.
    if (!connection.use().is_used()) connection.use().set_role(ConnectionUse::Role::Shared);
    update_health();
}

void Node::on_dial_failed(Connection& connection, const std::string& reason) {
    if (topology_.is_tried(connection)) {
        topology_.note_tried_failed(reason);
        return;
    }
    if (reason.starts_with("TLS")) events_.on_credentials_refused();
    note_absence(with_advice(reason));
    dials_.note_failed(connection);
}

void Node::on_lost(Connection& connection, const std::string& reason) {
    if (topology_.is_tried(connection)) {
        topology_.note_tried_failed(reason);
        return;
    }
    // Another server, or the same started anew, may have other databases.
    catalog_.forget_databases();
    coherence_.note_lost(connection);
    suspicion_.note_lost();
    // A server that has become a replica is there; whether one answers is known when it is dialled.
    if (!topology_.is_leaving_replica() && !connection.probe().is_demoted()) note_absence(reason);
    dials_.note_lost(connection);
}

void Node::on_closed(Connection& connection, const std::string& reason) {
    if (is_stopping_) return;
    dials_.note_closed(connection);
    suspicion_.note_lost();
    if (health_.state().is_ready) note_absence(reason);
    connections_.note_closed();
}

void Node::on_auth_refused(Connection& connection, const std::string& reason) {
    const bool is_tried = topology_.is_tried(connection);
    if (is_tried) topology_.note_tried_refused();
    // The word about one that a reload tries is the reload's.
    if (is_tried && topology_.is_wanted()) return;
    ++context_.metrics.auth_failures_total;
    if (connection.is_retired()) return;
    const std::string explained = with_advice(reason);
    if (!is_tried && context_.failures.is_news(explained)) {
        context_.log.error("upstream_auth_refused",
                           {{"upstream", redacted(target_->url)}, {"reason", explained}});
    }
    events_.on_credentials_refused();
}

void Node::on_heartbeat(Connection& connection) {
    if (connection.is_retired()) return;
    health_.note_pong(connection.probe().pong());
    topology_.note_role(connection);
    if (connection.probe().pong().serves) {
        ++context_.metrics.heartbeats_total;
        coherence_.note_heartbeat();
    }
    update_health();
}

void Node::on_demoted(Connection& connection) {
    if (connection.is_retired()) return;
    if (context_.redirects == nullptr) {
        topology_.note_demoted();
    } else {
        connection.probe().accept_role();
        coherence_.leave_replica();
        events_.on_demoted();
    }
}

// A node of a cluster sends on what it does not run.
void Node::on_role_doubted(Connection& connection) {
    if (context_.redirects == nullptr) {
        topology_.doubt_role(connection);
    } else {
        events_.on_demoted();
    }
}

// --- what the server is ---

void Node::note_hello(const Value& hello) {
    catalog_.note_hello(hello);
    coherence_.note_mode(catalog_.is_cluster());
}

void Node::on_catalog(const std::string& refusal) {
    if (refusal.empty()) {
        coherence_.note_commands();
        update_health();
        return;
    }
    const std::string explained = with_advice(refusal);
    health_.note_unknown(explained);
    update_health();
    if (!context_.failures.is_news(explained)) return;
    context_.log.error("command_table_refused",
                       {{"upstream", redacted(target_->url)}, {"reason", explained}});
}

// If no connection is left, Valkey is away; before its commands are known, it was never there.
void Node::note_absence(const std::string& reason) {
    const bool is_away = context_.ready == 0;
    if (!is_away && catalog_.knows_commands()) return;
    if (is_away) dials_.note_absent();
    health_.note_absence(reason);
}

void Node::update_health() {
    health_.update(
        {.is_unknown = !catalog_.knows_commands(), .is_unconfirmed = suspicion_.is_unconfirmed()});
}

ServerFacts Node::server() const {
    const Connection& primary = connections_.shared().primary();
    if (!primary.is_ready()) return {};
    const UpstreamUrl& url = target_->url;
    return {url.is_tcp() ? to_text({primary.address(), url.port}) : url.path,
            primary.probe().is_replica() ? "replica" : "primary"};
}

// --- the time ---

void Node::on_watch_wanted() {
    context_.is_watched = true;
    tick_timer_.start_repeating(kTickMs);
}

void Node::tick() {
    connections_.tick();
    coherence_.tick();
    health_.tick();
    if (suspicion_.tick(health_)) coherence_.sources().suspend_all();
    update_health();
    // A look with each heartbeat is enough if nothing is about to happen.
    if (!health().is_ready || health_.may_be_silent() || coherence_.wants_ticks() ||
        connections_.wants_ticks()) {
        context_.watch();
    } else {
        tick_timer_.stop();
        context_.is_watched = false;
    }
}

void Node::beat() {
    tick();
    if (context_.redirects == nullptr) {
        context_.metrics.upstream_dedicated_idle = leases().idle().size();
        context_.metrics.upstream_dedicated_max = options().dedicated_max;
    }
    // A leased connection may be waiting in a blocking command: TCP keepalive watches it.
    connections_.for_each([](Connection& connection) {
        if (!connection.use().is_leased() && !connection.is_retired())
            connection.probe().send_heartbeat();
    });
    if (!catalog_.knows_commands() && context_.ready > 0) refresh_commands();
    coherence_.beat();
    events_.on_beat();
}

}  // namespace nearkey
