// How the pool turns to another upstream: a reload named another URL, password or certificate, or
// the upstream's name leads elsewhere since a failover.
//
//   try_target ──▶ a connection of its own asks the new one ──PONG──▶ on_target_proven
//   adopt_target: ready connections retire, others are redirected with all that waits in them
//
//   -READONLY ──▶ HELLO: its role? ──replica──▶ on_demoted ──▶ seek_primary: dialled once more, and
//   adopted if a primary answers. Nothing is dialled for a script that says READONLY. Asked at most
//   once in upstream.backoff_max_ms.
//
// Nothing that is in flight is lost, and nobody waits longer than before:
//   - A shared connection that is ready answers what it owes and takes nothing more; each session
//     leaves it as soon as it is owed nothing. Then it is closed.
//   - A lease stays with its session for as long as that has state on it (a transaction, a tunnel,
//     a blocking command), and is given up after upstream.drain_timeout_ms if the new upstream is
//     another server: a subscriber that stayed would hear nothing that is published on the new one.
//   - What waits for a connection that is not ready was never sent: the new one gets it.
// Nothing that the former said is stored or served from then on: the near cache is cleared, open
// fills are void, and a retired connection is no source. Nor does it count as a sign of life.
#include "nearkey/upstream/pool.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
bool is_same_server(const UpstreamUrl& one, const UpstreamUrl& other) {
    return one.kind == other.kind && one.host == other.host && one.port == other.port &&
           one.path == other.path;
}

constexpr std::string_view kHello = "*1\r\n$5\r\nHELLO\r\n";

}  // namespace

// --- after a failover ---

// A connection of a session's own may be anything but in a state to be asked.
void ConnectionPool::on_readonly(Connection& connection) {
    const bool is_due =
        role_asked_ms_ == 0 || role_asked_ms_ + options_.backoff_max_ms <= loop_.now_ms();
    if (!is_due || role_question_.is_open() || candidate_ != nullptr) return;
    Connection& asked = connection.is_leased ? *primary_ : connection;
    if (!asked.is_ready()) return;
    role_asked_ms_ = loop_.now_ms();
    role_for_lease_ = connection.is_leased;
    role_question_.ask(asked, kHello, RequestKind::Write);
}

void ConnectionPool::on_role(std::string_view reply) {
    const std::optional<Value> hello = parse_value(reply);
    const std::string_view role = hello ? hello->text_of("role") : std::string_view{};
    if (role.empty()) return;
    hello_ = *hello;
    if (role != "master") {
        if (!std::exchange(is_demoted_, true)) {
            log_.warning("upstream_demoted", {{"upstream", redacted(target_->url)},
                                              {"what", "a replica, which refuses writes"}});
        }
        events_.on_demoted();
        return;
    }
    is_demoted_ = false;
    if (!role_for_lease_) return;
    // Other connections than that of the lease are to a primary.
    for (const auto& lease : idle_leases_)
        lease->close("it may be to a replica");
}

void ConnectionPool::seek_primary(TargetEvents& events) {
    dial_candidate(nullptr, events);
}

// --- a candidate ---

void ConnectionPool::try_target(std::unique_ptr<UpstreamTarget> target, TargetEvents& events) {
    dial_candidate(std::move(target), events);
}

void ConnectionPool::dial_candidate(std::unique_ptr<UpstreamTarget> target, TargetEvents& events) {
    forget_target();
    candidate_.reset(new Candidate{.target = std::move(target),
                                   .connection = nullptr,
                                   .events = events,
                                   .deadline_ms = loop_.now_ms() + options_.connect_timeout_ms,
                                   .failure = {},
                                   .hello = {},
                                   .is_told = false});
    UpstreamTarget& where = candidate_->target != nullptr ? *candidate_->target : *target_;
    candidate_->connection = std::make_unique<Connection>(context_, 2, where.url.database);
    candidate_->connection->redirect(where);
    candidate_->connection->users = 1;
    candidate_->connection->is_primary = true;
    candidate_->connection->dial();
}

void ConnectionPool::forget_target() {
    if (candidate_ == nullptr) return;
    candidate_timer_.stop();
    std::unique_ptr<Connection> connection = std::move(candidate_->connection);
    candidate_.reset();
    connection->users = 0;
    retired_.push_back(std::move(connection));
    retired_.back()->close("another upstream is not wanted");
}

bool ConnectionPool::is_candidate(const Connection& connection) const {
    return candidate_ != nullptr && candidate_->connection.get() == &connection;
}

// A name may have several addresses, and not each is served: it is dialled again.
void ConnectionPool::on_candidate_failed(const std::string& reason) {
    candidate_->failure = reason;
    candidate_timer_.start_once(options_.backoff_min_ms);
}

// Outside of the connection's own callbacks.
void ConnectionPool::judge_candidate() {
    if (candidate_->connection->is_ready() && !candidate_->connection->pong().serves) {
        candidate_->connection->give_up(candidate_->connection->pong().refusal);
    } else if (candidate_->connection->is_ready()) {
        if (candidate_->target == nullptr && candidate_->hello.text_of("role") != "master") {
            refuse_candidate("a replica answers there");
            return;
        }
        if (!std::exchange(candidate_->is_told, true)) candidate_->events.on_target_proven();
    } else if (candidate_->is_told || loop_.now_ms() < candidate_->deadline_ms) {
        candidate_->connection->dial();
    } else {
        refuse_candidate(std::string(candidate_->failure));
    }
}

void ConnectionPool::refuse_candidate(const std::string& reason) {
    TargetEvents& events = candidate_->events;
    forget_target();
    events.on_target_refused(reason);
}

// --- the switch ---

void ConnectionPool::adopt_target() {
    CHECK(candidate_ != nullptr);
    if (!candidate_->connection->is_ready()) {
        if (candidate_->target != nullptr) {
            turn_to(std::move(candidate_->target));
        } else {
            forget_target();  // The next READONLY seeks again.
        }
        return;
    }
    const std::unique_ptr<Candidate> candidate = std::exchange(candidate_, nullptr);
    candidate_timer_.stop();
    hello_ = candidate->hello;
    is_demoted_ = false;
    switch_to(std::move(candidate->target), std::move(candidate->connection));
    note_mode();
    is_proven_ = true;
    note_pong(primary_->pong());
    context_.heard_ms = loop_.now_ms();
    known_databases_ = {primary_->database()};
    ask_for_commands();
    if (cache() != nullptr) {
        track(*primary_);
        ask_for_swapdb();
    }
    update_health();
}

void ConnectionPool::turn_to(std::unique_ptr<UpstreamTarget> target) {
    forget_target();
    const int database = target->url.database;
    auto primary = std::make_unique<Connection>(context_, 2, database);
    primary->redirect(*target);
    primary->users = 1;
    primary->is_primary = true;
    switch_to(std::move(target), std::move(primary));
    is_proven_ = false;
    known_databases_.clear();
    on_wants_dial(*primary_);
    if (metrics_.upstream_connections == 0) set_health(false, "connecting to another upstream");
}

void ConnectionPool::switch_to(std::unique_ptr<UpstreamTarget> target,
                               std::unique_ptr<Connection> primary) {
    // Until the end of this function: connections still point to it.
    const std::unique_ptr<UpstreamTarget> former =
        target != nullptr ? std::exchange(target_, std::move(target)) : nullptr;
    context_.target = target_.get();
    has_former_ = true;
    watch();
    scout_ = nullptr;
    forget_former();
    leave_shared();
    // Behind the same name: what a session has on the former one stays, as it does directly.
    const bool is_elsewhere = former != nullptr && !is_same_server(former->url, target_->url);
    const uint64_t until_ms =
        is_elsewhere ? loop_.now_ms() + options_.drain_timeout_ms : UINT64_MAX;
    for (const auto& lease : leased_)
        leave(*lease, until_ms);
    for (const auto& lease : idle_leases_)
        lease->close("its upstream was replaced");

    primary_ = primary.get();
    shared_[{primary->protocol(), primary->database()}].push_back(std::move(primary));
    if (cache() != nullptr) {
        retired_.push_back(std::move(receiver_));
        receiver_id_ = 0;
        start_receiver();
        retired_.back()->users = 0;
        retired_.back()->close("its upstream was replaced");
        if (!is_broken(Rule::Upstream))
            cache()->clear(InvalidationCause::Upstream, Loop::boot_ms());
        touch_->forget_policy();
    }
    if (!wants_dial_.empty()) dial_timer_.start_once(0);
    defer();
}

void ConnectionPool::leave_shared() {
    primary_->is_primary = false;
    release(*primary_);
    for (auto& [key, group] : shared_) {
        for (auto& connection : group) {
            leave(*connection, UINT64_MAX);
            if (connection->is_retired()) retired_.push_back(std::move(connection));
        }
        std::erase(group, nullptr);
    }
}

void ConnectionPool::leave(Connection& connection, uint64_t retired_until_ms) {
    if (connection.is_retired()) return;
    if (connection.is_ready()) {
        connection.retire();
        connection.retired_until_ms = retired_until_ms;
        return;
    }
    connection.redirect(*target_);
    if (connection.has_waiting()) on_wants_dial(connection);
}

// What the former was asked for ourselves, and what it has taught.
void ConnectionPool::forget_former() {
    commands_question_.drop();
    parameters_question_.drop();
    stats_question_.drop();
    role_question_.drop();
    swaps_ = {};
    swapdb_proven_ms_ = 0;
    is_swapdb_hidden_ = false;
    pttl_refused_ms_ = 0;
    fields_expire_ = true;
    tracking_refusal_.clear();
    logged_failures_.clear();
    backoff_.reset();
}

void ConnectionPool::close_retired(Connection& connection, uint64_t now_ms) {
    if (!connection.is_leased && connection.is_idle()) {
        connection.close("its upstream was replaced");
    } else if (connection.retired_until_ms <= now_ms) {
        connection.give_up("its upstream was replaced (upstream.drain_timeout_ms)");
    }
}

void ConnectionPool::note_retired() {
    if (!has_former_ || metrics_.upstream_connections_retired > 0) return;
    has_former_ = false;
    log_.info("former_upstream_left", {});
}

// --- other changes ---

void ConnectionPool::set_access(UpstreamTarget& fresh) {
    target_->url.user = fresh.url.user;
    target_->url.password = fresh.url.password;
    // In place: a connection that is being made still points to it.
    if (target_->tls != nullptr && fresh.tls != nullptr) *target_->tls = std::move(*fresh.tls);
}

void ConnectionPool::apply_options() {
    backoff_.set_limits(options_.backoff_min_ms, options_.backoff_max_ms);
    bound_staleness(max_staleness_ms_);
    close_surplus_leases();
    grant_leases();
    if (cache() != nullptr) auditor_->schedule();
}

}  // namespace nearkey
