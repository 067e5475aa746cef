#include "nearkey/upstream/pool.h"

#include "nearkey/base/check.h"
#include "nearkey/upstream/advice.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kTickMs = 20;
// Whoever waits for another's equal read longer than that reads for himself: the other's connection
// may be stuck.
constexpr uint64_t kFillWaitMaxMs = 100;
constexpr size_t kPassedForPause = 3;
constexpr size_t kFailuresLoggedMax = 16;
constexpr size_t kBucketsPerBeat = 8192;
constexpr size_t kHelloReplyMax = size_t{64} << 10;
constexpr size_t kTableReplyMax = size_t{32} << 20;
constexpr size_t kStatsReplyMax = size_t{1} << 20;
constexpr size_t kParametersReplyMax = size_t{1} << 20;
constexpr const char* kAsking = "asking Valkey for its commands";
}  // namespace

ConnectionPool::ConnectionPool(const Parts& parts, const UpstreamOptions& options,
                               std::unique_ptr<UpstreamTarget> target)
    : Deferred(parts.loop, Phase::Reap),
      loop_(parts.loop),
      options_(options),
      target_(std::move(target)),
      metrics_(parts.metrics),
      log_(parts.log),
      events_(parts.events),
      is_first_(parts.is_first),
      reaper_(parts.loop),
      context_{.loop = parts.loop,
               .options = options,
               .target = target_.get(),
               .metrics = parts.metrics,
               .log = parts.log,
               .scratch = parts.scratch,
               .events = *this,
               .reaper = reaper_,
               .cache = parts.cache},
      candidate_timer_(parts.loop, [this] { judge_candidate(); }),
      role_question_(*this, kHelloReplyMax, &ConnectionPool::on_role),
      backoff_(options.backoff_min_ms, options.backoff_max_ms, parts.backoff_seed),
      dial_timer_(parts.loop, [this] { dial_next(); }),
      tick_timer_(parts.loop, [this] { tick(); }),
      heartbeat_timer_(parts.loop, [this] { beat(); }),
      commands_question_(*this, kTableReplyMax, &ConnectionPool::on_commands),
      commands_(std::make_unique<CommandTable>()),
      parameters_question_(*this, kParametersReplyMax, &ConnectionPool::on_parameters),
      proofs_(*this),
      stats_question_(*this, kStatsReplyMax, &ConnectionPool::on_stats),
      beat_interval_ms_(options.heartbeat_interval_ms) {
    if (cache() == nullptr) return;
    is_broadcast_ = cache()->options().tracking == "broadcast";
    is_told_of_all_ = !is_broadcast_;
    touch_ = std::make_unique<TouchReporter>(*this, cache()->options(), metrics_, log_);
    auditor_ = std::make_unique<Auditor>(*this, metrics_, log_);
}

ConnectionPool::~ConnectionPool() {
    stopping_ = true;
    forget_target();
    for_each_connection([](Connection& connection) { connection.close("nearkey stops"); });
}

void ConnectionPool::start() {
    health_.since_ms = loop_.now_ms();
    why_unknown_ = kAsking;
    primary_ = acquire(2, target_->url.database);
    CHECK(primary_ != nullptr);
    primary_->is_primary = true;
    on_wants_dial(*primary_);
    if (cache() != nullptr) start_receiver();
    on_watch_wanted();
    heartbeat_timer_.start_repeating(beat_interval_ms_);
}

Connection* ConnectionPool::acquire(int protocol, int database) {
    Connections& group = shared_[{protocol, database}];
    // Nobody leaves one that waits at the server for one that may never be ready: the server may be
    // busy for everybody.
    const bool is_held_up = std::any_of(group.begin(), group.end(),
                                        [](const auto& each) { return each->is_held_up(); });
    const auto least =
        std::min_element(group.begin(), group.end(), [&](const auto& a, const auto& b) {
            const auto rank = [&](const Connection& connection) {
                return std::tuple(connection.state() == ConnectionState::Closed,
                                  is_held_up && !connection.is_ready(),
                                  connection.is_congested() || connection.is_held_up(),
                                  connection.users);
            };
            return rank(*a) < rank(*b);
        });
    const bool has_one = least != group.end() && (*least)->state() != ConnectionState::Closed;
    // One more than configured keeps the others' commands from behind a large reply.
    const bool is_congested = has_one && (*least)->is_congested();
    const size_t wanted = is_held_up ? group.size() : options_.connections + (is_congested ? 1 : 0);
    if (has_one && ((*least)->users == 0 || group.size() >= wanted) &&
        !(is_congested && group.size() < wanted)) {
        ++(*least)->users;
        return least->get();
    }
    if (shared_count() >= options_.connections_max && !close_least_needed()) {
        if (has_one) {
            ++(*least)->users;
            return least->get();
        }
        ++metrics_.upstream_shared_refused_total;
        return nullptr;
    }
    group.push_back(std::make_unique<Connection>(context_, protocol, database));
    group.back()->users = 1;
    is_crowded_ = is_crowded_ || group.size() > 1;
    return group.back().get();
}

// Where each connection of a group waits at the server, one more is connected for those who come.
// One in any case; more only while the server answers others, for then it keeps these waiting on
// purpose (CLIENT PAUSE WRITE).
void ConnectionPool::relieve_held_up() {
    may_hold_writes_ = false;
    for (auto& [key, group] : shared_) {
        const auto is_open = [](const auto& each) {
            return each->state() != ConnectionState::Closed;
        };
        const auto open = static_cast<size_t>(std::count_if(group.begin(), group.end(), is_open));
        const bool is_stuck =
            open > 0 && std::all_of(group.begin(), group.end(), [&](const auto& each) {
                return !is_open(each) || each->is_held_up();
            });
        const size_t passed = count_passed(group);
        may_hold_writes_ = may_hold_writes_ || passed >= kPassedForPause;
        if (!is_stuck) {
            look_past_held_up(group);
            continue;
        }
        if (shared_count() >= options_.connections_max) continue;
        if (open > options_.connections && passed == 0) continue;
        group.push_back(std::make_unique<Connection>(context_, key.first, key.second));
        group.back()->unused_since_ms = loop_.now_ms();
        is_crowded_ = true;
        on_wants_dial(*group.back());
    }
}

// A place is made for another database or protocol: of the connections that nobody uses, the one
// unused for longest goes. False: all are used.
bool ConnectionPool::close_least_needed() {
    Connection* least = nullptr;
    for (const auto& [key, group] : shared_) {
        for (const auto& connection : group) {
            const bool is_unneeded = connection->users == 0 && !connection->is_primary &&
                                     connection->state() != ConnectionState::Closed &&
                                     connection->owes_nobody();
            if (!is_unneeded) continue;
            if (least == nullptr || connection->unused_since_ms < least->unused_since_ms) {
                least = connection.get();
            }
        }
    }
    if (least == nullptr) return false;
    least->close("its place is needed");
    return true;
}

size_t ConnectionPool::count_passed(const Connections& group) {
    return static_cast<size_t>(std::count_if(
        group.begin(), group.end(), [](const auto& each) { return each->is_passed(); }));
}

// What stands behind a head that waits may go another way, if the server goes on answering there:
// each tick asks whether it does.
void ConnectionPool::look_past_held_up(const Connections& group) {
    const bool is_held_up = std::any_of(group.begin(), group.end(),
                                        [](const auto& each) { return each->is_held_up(); });
    if (!is_held_up) return;
    for (const auto& each : group) {
        if (each->is_held_up()) {
            each->tell_held_up(loop_.now_ms());
        } else {
            each->send_heartbeat();
        }
    }
}

Connection* ConnectionPool::find_held_up(int protocol, int database) {
    const auto found = shared_.find({protocol, database});
    if (found == shared_.end() || count_passed(found->second) < kPassedForPause) return nullptr;
    Connection* least = nullptr;
    for (const auto& each : found->second) {
        if (!each->is_passed()) continue;
        if (least == nullptr || each->users < least->users) least = each.get();
    }
    return least;
}

void ConnectionPool::change_connection(Connection*& used, Connection& next) {
    ++next.users;
    Connection* const former = std::exchange(used, &next);
    if (former != nullptr) release(*former);
}

void ConnectionPool::release(Connection& connection) {
    CHECK(connection.users > 0);
    if (--connection.users > 0) return;
    connection.unused_since_ms = loop_.now_ms();
    if (connection.state() == ConnectionState::Closed) defer();
}

void ConnectionPool::on_wants_dial(Connection& connection) {
    if (std::find(wants_dial_.begin(), wants_dial_.end(), &connection) != wants_dial_.end()) return;
    wants_dial_.push_back(&connection);
    // Not at once: this can be said from inside a failing dial.
    if (!dial_timer_.is_active() && (is_proven_ || scout_ == nullptr)) dial_timer_.start_once(0);
}

void ConnectionPool::dial_next() {
    // A dial that fails at once has started the timer again.
    while (!wants_dial_.empty() && scout_ == nullptr && !dial_timer_.is_active()) {
        Connection* next = wants_dial_.front();
        wants_dial_.pop_front();
        if (next->state() != ConnectionState::Idle) continue;
        if (!is_proven_) scout_ = next;
        next->dial();
    }
}

void ConnectionPool::on_ready(Connection& connection, const Value& hello) {
    const Value* id = hello.find("id");
    connection.server_id = id == nullptr ? 0 : id->integer;
    if (is_candidate(connection)) {
        candidate_->hello = hello;
        candidate_timer_.start_once(0);
        return;
    }
    if (scout_ == &connection) scout_ = nullptr;
    is_proven_ = true;
    backoff_.reset();
    // A failure of the primary is said once, however often another connection succeeds meanwhile.
    if (connection.is_primary || has_commands_) logged_failures_.clear();
    hello_ = hello;
    note_mode();
    known_databases_.insert(connection.database());
    note_pong(connection.pong());
    if (connection.is_primary) {
        why_unknown_ = kAsking;
        ask_for_commands();
    }
    if (cache() != nullptr) {
        if (!is_loading()) cache()->drop_lost();
        if (&connection == receiver_.get()) {
            receiver_id_ = connection.server_id;
            if (is_broadcast_ && !is_cluster_) {
                receiver_->start_broadcast(cache()->options().prefixes);
            } else {
                track_all(2);
            }
        } else if (!connection.is_leased) {
            track(connection);
        }
        // Nothing is stored before the answer.
        if (connection.is_primary) ask_for_swapdb();
    }
    if (connection.users == 0) connection.is_leased = false;  // a lease nobody has taken yet
    update_health();
    if (!wants_dial_.empty()) dial_timer_.start_once(0);
}

void ConnectionPool::on_dial_failed(Connection& connection, const std::string& reason) {
    if (is_candidate(connection)) {
        on_candidate_failed(reason);
        return;
    }
    if (scout_ == &connection) scout_ = nullptr;
    is_proven_ = false;
    if (reason.starts_with("TLS")) events_.on_credentials_refused();
    note_absence(with_advice(reason));
    dial_again(connection, backoff_.next_ms());
}

void ConnectionPool::on_lost(Connection& connection, const std::string& reason) {
    if (is_candidate(connection)) {
        on_candidate_failed(reason);
        return;
    }
    // Another server, or the same started anew, may have counted to the same numbers, and may have
    // other databases.
    if (connection.is_primary) swaps_.forget();
    known_databases_.clear();
    if (&connection == receiver_.get()) {
        untrack_redirected();
    } else if (is_broadcast_ && !connection.is_leased) {
        // What is retried may be answered by another server than the one that tells of changes.
        cache()->clear(InvalidationCause::Lost, Loop::boot_ms());
    }
    note_absence(reason);
    dial_again(connection, is_proven_ ? 0 : backoff_.next_ms());
}

void ConnectionPool::on_closed(Connection& connection, const std::string& reason) {
    if (stopping_) return;
    std::erase(wants_dial_, &connection);
    if (scout_ == &connection) {
        scout_ = nullptr;
        dial_timer_.start_once(0);
    }
    if (health_.is_ready) note_absence(reason);
    defer();
}

void ConnectionPool::dial_again(Connection& connection, uint64_t delay_ms) {
    if (connection.users > 0 || connection.has_waiting() || connection.is_primary) {
        wants_dial_.push_back(&connection);
    }
    if (!wants_dial_.empty() && scout_ == nullptr) dial_timer_.start_once(delay_ms);
}

bool ConnectionPool::is_news(const std::string& failure) {
    return logged_failures_.size() < kFailuresLoggedMax && logged_failures_.insert(failure).second;
}

void ConnectionPool::on_auth_refused(Connection& connection, const std::string& reason) {
    ++metrics_.auth_failures_total;
    if (connection.is_retired()) return;
    if (is_candidate(connection)) {
        candidate_->deadline_ms = 0;
        return;
    }
    const std::string explained = with_advice(reason);
    if (is_news(explained)) {
        log_.error("upstream_auth_refused",
                   {{"upstream", redacted(target_->url)}, {"reason", explained}});
    }
    events_.on_credentials_refused();
}

void ConnectionPool::tick() {
    const uint64_t now = loop_.now_ms();
    for_each_connection([now](Connection& connection) { connection.expire(now); });
    close_unused(now);
    relieve_held_up();
    note_retired();
    expire_lease_queue(now);
    if (cache() != nullptr) cache()->end_long_waits(Loop::boot_ms() - kFillWaitMaxMs);
    proofs_.end_late();
    watch_absence();
    update_health();
    if (wants_ticks()) {
        watch();
    } else {
        tick_timer_.stop();
        context_.is_watched = false;
    }
}

void ConnectionPool::watch() {
    if (!context_.is_watched) on_watch_wanted();
}

void ConnectionPool::on_watch_wanted() {
    context_.is_watched = true;
    tick_timer_.start_repeating(kTickMs);
}

// Else a look with each heartbeat is enough.
bool ConnectionPool::wants_ticks() {
    if (!health_.is_ready || !lease_queue_.empty() || has_former_ || silent_ticks_ > 0) return true;
    if (proofs_.is_under_way()) return true;
    bool wanted = false;
    for_each_connection(
        [&](Connection& connection) { wanted = wanted || connection.wants_expiry(); });
    return wanted;
}

void ConnectionPool::beat() {
    tick();
    metrics_.upstream_dedicated_idle = idle_leases_.size();
    metrics_.upstream_dedicated_max = options_.dedicated_max;
    if (cache() != nullptr) count_lease();
    // A leased connection may be waiting in a blocking command: TCP keepalive watches it.
    for_each_connection([this](Connection& connection) {
        if (!connection.is_leased && !connection.is_retired()) connection.send_heartbeat();
    });
    if (!has_commands_ && metrics_.upstream_connections > 0) refresh_commands();
    if (cache() == nullptr) return;
    ask_for_swapdb();
    touch_->beat(*primary_, loop_.now_ms());
    auditor_->beat();
    cache()->sweep(kBucketsPerBeat, Loop::boot_ms());
}

void ConnectionPool::close_unused(uint64_t now_ms) {
    for_each_connection([&](Connection& connection) {
        if (connection.is_retired()) close_retired(connection, now_ms);
        const bool is_unused =
            connection.users == 0 && connection.is_idle() && !connection.is_primary;
        const bool is_old = connection.unused_since_ms + options_.idle_timeout_ms < now_ms;
        const bool is_dead = connection.state() == ConnectionState::Idle;
        if (is_unused && (is_old || is_dead)) connection.close("unused");
        if (connection.state() == ConnectionState::Closed && connection.users == 0) defer();
    });
}

void ConnectionPool::before_sleep() {
    const auto is_over = [this](const std::unique_ptr<Connection>& connection) {
        const bool over = connection->state() == ConnectionState::Closed && connection->users == 0;
        if (over) std::erase(wants_dial_, connection.get());
        return over;
    };
    for (auto& [key, group] : shared_)
        std::erase_if(group, is_over);
    std::erase_if(shared_, [](const auto& group) { return group.second.empty(); });
    is_crowded_ = std::any_of(shared_.begin(), shared_.end(),
                              [](const auto& group) { return group.second.size() > 1; });
    std::erase_if(idle_leases_, is_over);
    std::erase_if(retired_, is_over);
}

size_t ConnectionPool::shared_count() const {
    size_t count = 0;
    for (const auto& [key, group] : shared_) {
        count += static_cast<size_t>(std::count_if(
            group.begin(), group.end(),
            [](const auto& connection) { return connection->state() != ConnectionState::Closed; }));
    }
    return count;
}

// What is visited may give leases back: the lists change, but connections live until the Reap
// phase.
template <class Visit>
void ConnectionPool::for_each_connection(Visit visit) {
    std::vector<Connection*> all = std::exchange(spare_visit_, {});
    const auto collect = [&all](const Connections& connections) {
        for (const auto& connection : connections)
            all.push_back(connection.get());
    };
    for (const auto& [key, group] : shared_)
        collect(group);
    collect(leased_);
    collect(idle_leases_);
    collect(retired_);
    if (receiver_ != nullptr) all.push_back(receiver_.get());
    for (Connection* connection : all)
        visit(*connection);
    all.clear();
    spare_visit_ = std::move(all);
}

}  // namespace nearkey
