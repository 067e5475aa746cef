#include "instance.h"

#include "failovers.h"
#include "nodes.h"

#include <algorithm>
#include <string>
#include <utility>

namespace nearkey::simulation {

namespace {
const char* other(const std::string& server) {
    return server == kServers[0] ? kServers[1] : kServers[0];
}
}  // namespace

// --- a cluster: as Worker in src/daemon ---

void World::Worker::on_health_changed(const UpstreamHealth& health) {
    if (finder_ != nullptr) finder_->look();
    if (cluster_ != nullptr && !node_.health().is_ready) cluster_->doubt();
    const bool is_one = world_.nodes_ == nullptr;
    const bool serves =
        cluster_ != nullptr && node_.catalog().knows_commands() && cluster_->serves();
    if (is_listening_ || !(is_one ? health.is_ready : serves)) return;
    is_listening_ = true;
    world_.start_clients(channel_, context);
}

std::unique_ptr<Cluster> World::Worker::make_cluster() {
    return std::make_unique<Cluster>(
        Cluster::Parts{.loop = world_.loop_,
                       .metrics = metrics_,
                       .log = log_,
                       .scratch = scratch_,
                       .events = *this,
                       .make_target =
                           [](const UpstreamTarget& model, const nearkey::Endpoint& endpoint) {
                               UpstreamUrl url = model.url;
                               url.kind = UpstreamUrl::Kind::Tcp;
                               url.host = endpoint.host;
                               url.port = endpoint.port;
                               return std::make_unique<UpstreamTarget>(std::move(url), nullptr);
                           },
                       .options = options_,
                       .cluster_options = cluster_options_,
                       .cache = &cache_,
                       .seed = seed_});
}

void World::Worker::use_cluster() {
    context.cluster = context.ledgers.cluster = cluster_.get();
    ProofRounds& own = cluster_->coherence().proofs();
    if (is_alone_) {
        node_.coherence().share_cache(own, false);
        return;
    }
    proofs_->use(own);
    node_.coherence().share_cache(*proofs_);
    cluster_->coherence().share_cache(*proofs_);
}

void World::Worker::on_mode_found(bool is_cluster) {
    node_.coherence().decide(is_cluster);
    if (!is_cluster) return;
    cluster_ = make_cluster();
    node_.topology().join_cluster(*cluster_);
    use_cluster();
    cluster_->start(node_);
    on_serving_changed();
}

void World::Instance::use_nodes() {
    Random& random = world_.random_;
    upstream.cluster = this;
    url_.kind = random.one_in(4) ? UpstreamUrl::Kind::Tcp : UpstreamUrl::Kind::Cluster;
    for (size_t i = 0; i < world_.nodes_->primaries(); ++i)
        url_.seeds.push_back({world_.nodes_->names()[i], 6379});
    std::swap(url_.seeds[0], url_.seeds[random.below(url_.seeds.size())]);
    url_.host = url_.seeds[0].host;
    if (url_.kind == UpstreamUrl::Kind::Tcp) url_.seeds.clear();
}

void World::Instance::note_expiry(const KeyName& key) {
    world_.nodes_->note_expiry(key);
}

Reign& World::Instance::oldest_shown(const KeyName& key) {
    const uint16_t slot = slot_of(key.second);
    return world_.nodes_->oldest_shown(key, bound_us(), [&](const std::string& owner) {
        return std::all_of(workers_.begin(), workers_.end(),
                           [&](const auto& worker) { return worker->knows_other(slot, owner); });
    });
}

bool World::Instance::has_returned(uint16_t slot, uint64_t since_us) const {
    return world_.nodes_->has_returned(slot, since_us);
}

bool World::Instance::has_moved(uint16_t slot, uint64_t since_us) const {
    return world_.nodes_->has_moved(slot, since_us);
}

// --- another server ---

void World::Worker::on_target_proven() {
    mailbox_.post([this, trial = trial_] { instance_.on_target_proven(trial); });
}

void World::Worker::on_target_refused(const std::string&) {
    mailbox_.post([this, trial = trial_] { instance_.on_target_refused(trial); });
}

void World::Worker::on_demoted() {
    if (cluster_ != nullptr) return cluster_->doubt();
    mailbox_.post([this] { instance_.on_demoted(); });
}

void World::Worker::on_confirmation_wanted() {
    mailbox_.post([this] { instance_.on_confirmation_wanted(); });
}

void World::Instance::turn() {
    if (is_turning_) return;
    former_ = std::exchange(server(), other(server()));
    if (world_.random_.one_in(4)) {
        turn_all();
        return;
    }
    is_turning_ = true;
    ++trial_;
    unproven_ = workers_.size();
    for (const auto& worker : workers_)
        worker->try_target(url_, trial_);
}

// As Workers does.
void World::Instance::on_target_proven(uint64_t trial) {
    if (trial == trial_ && is_turning_ && --unproven_ == 0) turn_all();
}

void World::Instance::on_target_refused(uint64_t trial) {
    if (trial != trial_ || !is_turning_) return;
    forget_target();
    if (std::exchange(is_seeking_, false)) ask_for_primary(world_.random_.between(10'000, 150'000));
}

void World::Instance::forget_target() {
    is_turning_ = false;
    for (const auto& worker : workers_)
        worker->forget_target();
    server() = former_;
}

// The main thread does it for all event loops while they wait.
void World::Instance::turn_all() {
    ModelValkey& next = *world_.valkeys_[server() == kServers[0] ? 0 : 1];
    if (!std::exchange(is_seeking_, false)) ++upstream.turns;
    upstream.valkey = &next;
    upstream.reign = next.reign;
    for (const auto& worker : workers_) {
        if (is_turning_) {
            worker->adopt_target();
        } else {
            worker->turn_to(url_);
        }
    }
    is_turning_ = false;
    world_.on_turned(channel_);
}

// --- failovers ---

// What Valkey says of itself has a Sentinel asked.
void World::Instance::on_demoted() {
    ask_for_primary(world_.random_.below(100'000));
}

void World::Instance::on_confirmation_wanted() {
    ask_for_primary(world_.random_.below(100'000));
}

// Its heartbeats must have failed, and their ticks have been looked at.
bool World::Instance::is_silent() const {
    constexpr uint64_t kTicksUs = 100'000;
    const uint64_t limit_us = options_.suspect_after_ms * 1000 + bound_us() + kTicksUs;
    return std::all_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
        return worker->heard_us() + limit_us < world_.events_.now_us || !worker->is_connected();
    });
}

// A node of a cluster that is not known as one yet has nobody to be asked.
void World::Instance::ask_for_primary(uint64_t delay_us) {
    if (world_.failovers_ == nullptr || std::exchange(is_asking_, true)) return;
    world_.events_.after(delay_us, [this] {
        is_asking_ = false;
        seek_primary();
    });
}

void World::Instance::seek_primary() {
    const std::string& primary = world_.failovers_->primary();
    if (is_turning_ && server() == primary) return;
    if (is_turning_) forget_target();
    if (server() == primary) {
        for (const auto& worker : workers_)
            worker->confirm_primary();
        return;
    }
    former_ = std::exchange(server(), primary);
    is_turning_ = is_seeking_ = true;
    ++trial_;
    unproven_ = workers_.size();
    for (const auto& worker : workers_)
        worker->seek_primary(url_, trial_);
}

}  // namespace nearkey::simulation
