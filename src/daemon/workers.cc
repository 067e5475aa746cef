#include "nearkey/daemon/workers.h"

#include "nearkey/base/check.h"
#include "nearkey/upstream/cluster_facts.h"

#include <malloc.h>
#include <pthread.h>
#include <algorithm>
#include <csignal>
#include <iterator>
#include <unordered_map>
#include <utility>

namespace nearkey {

namespace {
// Adds what another event loop knows of the same node.
void join(const NodeFacts& other, NodeFacts& node) {
    node.connections += other.connections;
    node.in_flight += other.in_flight;
    node.waiting += other.waiting;
    // Each loop asks for itself, while it has reads.
    if (other.lag_seconds && (!node.lag_seconds || *other.lag_seconds < *node.lag_seconds)) {
        node.lag_seconds = other.lag_seconds;
    }
    if (!node.is_ready() || other.is_ready()) return;
    node.state = other.state;
    node.since_seconds = other.since_seconds;
}
}  // namespace

// --- threads ---

Workers::Workers(const Parts& parts, const WorkerShared& shared, Targets targets)
    : shared_(shared),
      metrics_(parts.metrics),
      events_(parts.events),
      mailbox_(std::make_unique<Mailbox>(parts.loop)) {
    not_started_.since_ms = parts.loop.now_ms();
    const size_t count = targets.size();
    NEARKEY_CHECK(count == shared_.config.server.workers);
    if (count > 1 && shared_.cache != nullptr) shared_.cache->share();
    // Threads seldom allocate; an arena for each would keep memory of a burst.
    if (count > 1) mallopt(M_ARENA_MAX, 1);
    first_ = std::make_unique<Worker>(parts_of(0, parts.loop, *mailbox_, parts.metrics),
                                      std::move(targets[0]));
    for (size_t i = 1; i < count; ++i) {
        Thread& other = *others_.emplace_back(std::make_unique<Thread>());
        shared_.all.add(other.metrics);
        other.worker = std::make_unique<Worker>(
            parts_of(i, other.loop, *other.mailbox, other.metrics), std::move(targets[i]));
    }
    for_each([this](Worker& worker) {
        for_each([&worker](Worker& other) {
            if (&other != &worker) worker.share_cache_with(other);
        });
    });
}

Workers::~Workers() = default;

Worker::Parts Workers::parts_of(size_t number, Loop& loop, Mailbox& mailbox, Metrics& metrics) {
    return {.number = number,
            .count = static_cast<size_t>(shared_.config.server.workers),
            .loop = loop,
            .mailbox = mailbox,
            .main_mailbox = *mailbox_,
            .metrics = metrics,
            .shared = shared_,
            .workers = *this};
}

void Workers::start() {
    for_each([](Worker& worker) { worker.start(); });
    is_running_ = true;
    // Signals are the main thread's.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; i < others_.size(); ++i)
        start_thread(i);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Workers::start_thread(size_t number) {
    Thread& other = *others_[number];
    // The first is the process.
    other.thread = std::thread([&other, name = "nearkey-" + std::to_string(number + 2)] {
        pthread_setname_np(pthread_self(), name.c_str());
        other.worker->settle_here();
        other.loop.run();
    });
}

bool Workers::end(uint64_t patience_ms) {
    NEARKEY_CHECK(pauses_ == 0);
    for (const auto& other : others_) {
        if (!other->thread.joinable()) continue;
        other->mailbox->post([&loop = other->loop] { loop.stop(); });
        other->thread.join();
    }
    is_running_ = false;
    // Proofs and mailboxes of any may be known to all.
    for (const auto& other : others_)
        other->worker.reset();
    first_.reset();
    bool is_over = true;
    const uint64_t end_ms = Loop::boot_ms() + patience_ms;
    for (const auto& other : others_) {
        other->mailbox.reset();
        const uint64_t now_ms = std::min(Loop::boot_ms(), end_ms);
        is_over = other->loop.finish(end_ms - now_ms) && is_over;
    }
    mailbox_.reset();
    return is_over;
}

// --- what the main thread does while all others wait ---

void Workers::stop_others() {
    if (pauses_++ == 0) park_others();
}

void Workers::let_others_go() {
    if (--pauses_ > 0 || !is_running_ || others_.empty()) return;
    const std::lock_guard lock(mutex_);
    is_paused_ = false;
    paused_changed_.notify_all();
}

// Returns once each has done what was posted to it, and waits. One that is parked already, or wakes
// up late from the pause before, goes on to that, and parks again.
void Workers::park_others() {
    if (!is_running_ || others_.empty()) return;
    std::unique_lock lock(mutex_);
    is_paused_ = true;
    parked_ = 0;
    const uint64_t number = ++pause_number_;
    paused_changed_.notify_all();
    const auto park = [this, number] {
        std::unique_lock parking(mutex_);
        ++parked_;
        parked_changed_.notify_one();
        paused_changed_.wait(parking,
                             [this, number] { return !is_paused_ || pause_number_ != number; });
    };
    for (const auto& other : others_)
        other->mailbox->post(park);
    parked_changed_.wait(lock, [this] { return parked_ == others_.size(); });
}

template <class Visit>
void Workers::for_each(Visit visit) {
    const Pause pause(*this);
    visit(*first_);
    for (const auto& other : others_)
        visit(*other->worker);
}

bool Workers::have_turned() {
    bool all = true;
    for (const auto& other : others_) {
        all = all && other->has_turned.load();
        other->has_turned = false;
        other->mailbox->post([&turned = other->has_turned] { turned = true; });
    }
    return all;
}

// --- Valkey ---

const UpstreamHealth& Workers::health() const {
    if (!is_running_) return not_started_;
    const UpstreamHealth& here = first().health();
    if (!here.is_ready) return here;
    const UpstreamHealth* worst = &here;
    for (const auto& other : others_) {
        if (!other->health.is_ready) return other->health;
        if (worst->degraded.empty()) worst = &other->health;
    }
    return *worst;
}

void Workers::on_worker_health(size_t worker, const UpstreamHealth& health) {
    if (worker > 0) others_[worker - 1]->health = health;
    events_.on_health_changed(this->health());
}

void Workers::try_target(Targets targets, TargetEvents& events) {
    begin_trial(events);
    auto target = targets.begin();
    for_each([&](Worker& worker) { worker.try_target(std::move(*target++), trial_); });
}

void Workers::begin_trial(TargetEvents& events) {
    ++trial_;
    target_events_ = &events;
    unproven_ = 1 + others_.size();
}

void Workers::seek_primary(Targets targets, TargetEvents& events) {
    begin_trial(events);
    targets.resize(1 + others_.size());
    auto target = targets.begin();
    for_each([&](Worker& worker) { worker.seek_primary(std::move(*target++), trial_); });
}

void Workers::confirm_primary() {
    for_each([](Worker& worker) { worker.node().confirm_primary(); });
}

void Workers::forget_target() {
    target_events_ = nullptr;
    for_each([](Worker& worker) { worker.node().topology().forget_target(); });
}

void Workers::on_worker_target_proven(uint64_t trial) {
    if (trial != trial_ || target_events_ == nullptr || --unproven_ > 0) return;
    std::exchange(target_events_, nullptr)->on_target_proven();
}

void Workers::on_worker_target_refused(uint64_t trial, const std::string& reason) {
    if (trial != trial_ || target_events_ == nullptr) return;
    TargetEvents& events = *target_events_;
    forget_target();
    events.on_target_refused(reason);
}

void Workers::adopt_target() {
    for_each([](Worker& worker) { worker.adopt_target(); });
}

void Workers::turn_to(Targets targets) {
    target_events_ = nullptr;
    auto target = targets.begin();
    for_each([&](Worker& worker) { worker.turn_to(std::move(*target++)); });
}

std::vector<Endpoint> Workers::seeds() {
    std::vector<Endpoint> seeds;
    bool are_cluster = false;
    for_each([&](Worker& worker) {
        const bool is_cluster = worker.cluster() != nullptr;
        seeds.push_back(is_cluster ? worker.node().target().url.endpoint() : Endpoint{});
        are_cluster = are_cluster || is_cluster;
    });
    return are_cluster ? seeds : std::vector<Endpoint>{};
}

void Workers::set_access(Targets targets) {
    auto target = targets.begin();
    for_each([&](Worker& worker) {
        if (worker.cluster() != nullptr) worker.cluster()->set_access(**target);
        worker.node().set_access(**target++);
    });
}

void Workers::apply_options() {
    for_each([this](Worker& worker) {
        if (shared_.cache != nullptr) {
            const uint64_t bound_ms = shared_.config.near_cache.max_staleness_ms;
            worker.for_each_node([=](Node& node) { node.bound_staleness(bound_ms); });
        }
        worker.for_each_node([](Node& node) { node.apply_options(); });
        if (worker.cluster() != nullptr) worker.cluster()->apply_options();
        worker.clients().apply_limits();
    });
}

void Workers::shrink() {
    for_each([](Worker& worker) {
        worker.clients().shrink();
        worker.for_each_node([](Node& node) { node.shrink(); });
    });
}

ConnectionList Workers::connections(size_t limit) {
    ConnectionList all;
    for_each([&](Worker& worker) {
        worker.for_each_node([&](Node& node) {
            ConnectionList list = node.connections().list(limit - all.connections.size());
            all.total += list.total;
            std::move(list.connections.begin(), list.connections.end(),
                      std::back_inserter(all.connections));
        });
    });
    return all;
}

std::vector<NodeFacts> Workers::nodes() {
    std::vector<NodeFacts> all;
    std::unordered_map<std::string, size_t> places;
    for_each([&](Worker& worker) {
        if (worker.cluster() == nullptr) return;
        for (NodeFacts& node : nodes_of(*worker.cluster(), worker.now_ms())) {
            const auto [found, is_new] = places.try_emplace(node.address, all.size());
            if (is_new) {
                all.push_back(std::move(node));
            } else {
                join(node, all[found->second]);
            }
        }
    });
    return all;
}

// --- clients ---

void Workers::open_doors(std::vector<ClientServer::Door> doors,
                         const std::function<std::vector<ClientServer::Door>()>& make_doors) {
    // First what can fail.
    using Doors = std::vector<ClientServer::Door>;
    std::vector<std::shared_ptr<Doors>> same;
    while (same.size() < others_.size()) {
        same.push_back(std::make_shared<Doors>(make_doors()));
        for (ClientServer::Door& door : *same.back())
            door.is_elsewhere = true;
    }
    first().clients().open_doors(std::move(doors));
    // Clients that were handed over have come through the former doors, and are taken first.
    for (size_t i = 0; i < others_.size(); ++i) {
        others_[i]->mailbox->post(
            [&clients = others_[i]->worker->clients(), opened = std::move(same[i])] {
                clients.open_doors(std::move(*opened));
            });
    }
    // A reload that is done holds on each of them.
    if (pauses_ > 0) park_others();
}

bool Workers::hand_over(uint64_t listener, int fd, uint64_t id) {
    if (is_closing_ || others_.empty()) return false;
    Thread& least =
        **std::min_element(others_.begin(), others_.end(),
                           [](const auto& a, const auto& b) { return a->clients < b->clients; });
    if (first().clients().count() <= least.clients) return false;
    ++least.clients;
    least.mailbox->post(
        [&clients = least.worker->clients(), listener, fd, id] { clients.take(listener, fd, id); });
    return true;
}

void Workers::on_client_ended(size_t worker, uint64_t listener) {
    --others_[worker - 1]->clients;
    first().clients().on_client_left(listener);
}

void Workers::leave_sockets(std::function<void()> left) {
    end_each(std::move(left), [](ClientServer& clients, std::function<void()> ended) {
        clients.leave_sockets(std::move(ended));
    });
}

void Workers::drain(std::function<void()> drained) {
    end_each(std::move(drained), [](ClientServer& clients, std::function<void()> ended) {
        clients.drain(std::move(ended));
    });
}

// `ended` is called on the main thread, once each has no client any more.
void Workers::end_each(std::function<void()> ended,
                       const std::function<void(ClientServer&, std::function<void()>)>& end) {
    is_closing_ = true;
    // drain() ends what leave_sockets() has begun: it is told of once.
    // Before the upstream is known the others have no loop yet, and no client.
    const auto all = std::make_shared<size_t>(1 + (is_running_ ? others_.size() : 0));
    const auto one = [all, ended = std::move(ended)] {
        if (--*all == 0) ended();
    };
    end(first().clients(), one);
    if (!is_running_) return;
    // Behind the clients that were handed over before, and may still be in the mailbox.
    for (const auto& other : others_) {
        other->mailbox->post([this, end, one, &clients = other->worker->clients()] {
            end(clients, [this, one] { mailbox_->post(one); });
        });
    }
}

ClientList Workers::clients(uint64_t after, size_t limit) {
    ClientList all;
    bool is_cut = false;
    for_each([&](Worker& worker) {
        ClientList list = worker.clients().list(after, limit);
        all.total += list.total;
        is_cut = is_cut || list.next != 0;
        std::move(list.clients.begin(), list.clients.end(), std::back_inserter(all.clients));
    });
    std::sort(all.clients.begin(), all.clients.end(),
              [](const auto& a, const auto& b) { return a.session < b.session; });
    is_cut = is_cut || all.clients.size() > limit;
    if (all.clients.size() > limit) all.clients.resize(limit);
    if (is_cut && !all.clients.empty()) all.next = all.clients.back().session;
    return all;
}

std::vector<HotKeys::Entry> Workers::hot_keys(size_t count, HotKeys::Outcome outcome,
                                              uint64_t now_ms) {
    const Pause pause(*this);
    std::vector<const HotKeys*> all;
    for_each([&](Worker& worker) { all.push_back(&worker.hot_keys()); });
    return HotKeys::top(all, count, outcome, now_ms);
}

}  // namespace nearkey
