#include "nearkey/daemon/worker.h"

#include "nearkey/base/random.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/upstream/cluster_facts.h"

#include <span>
#include <utility>

namespace nearkey {

namespace {
// A pipeline of large values is parsed in place; replies, which are copied on, are read in pieces
// that fit the processor's nearest caches.
constexpr size_t kScratchSize = size_t{160} << 10;
constexpr size_t kReplyScratchSize = size_t{64} << 10;
constexpr uint64_t kDegradedAfterMs = 1000;

// A node of the cluster that `model` leads to. Null: its certificates can't be read now.
std::unique_ptr<UpstreamTarget> make_target_at(const UpstreamTarget& model,
                                               const Endpoint& endpoint,
                                               const WorkerShared& shared) {
    UpstreamUrl url = model.url;
    url.kind = UpstreamUrl::Kind::Tcp;
    url.host = endpoint.host;
    url.port = endpoint.port;
    try {
        std::unique_ptr<TlsContext> tls;
        if (url.tls) tls = std::make_unique<TlsContext>(shared.config.upstream, url.host);
        return std::make_unique<UpstreamTarget>(std::move(url), std::move(tls));
    } catch (const std::exception& error) {
        shared.log.error("cluster_node_refused",
                         {{"node", to_text(endpoint)}, {"reason", error.what()}});
        return nullptr;
    }
}
}  // namespace

Worker::Worker(const Parts& parts, std::unique_ptr<UpstreamTarget> target)
    : number_(parts.number),
      mailbox_(parts.mailbox),
      main_mailbox_(parts.main_mailbox),
      loop_(parts.loop),
      metrics_(parts.metrics),
      cache_(parts.shared.cache),
      workers_(parts.workers),
      shared_(parts.shared),
      hot_keys_(parts.shared.config.hot_keys, parts.shared.key_hash),
      scratch_(kScratchSize) {
    const WorkerShared& shared = parts.shared;
    const UpstreamUrl::Kind kind = target->url.kind;
    if (kind == UpstreamUrl::Kind::Cluster) cluster_ = make_cluster();
    node_ = std::make_unique<Node>(Node::Parts{.loop = parts.loop,
                                               .metrics = parts.metrics,
                                               .log = shared.log,
                                               .scratch = reply_scratch(),
                                               .events = *this,
                                               .cache = cache_,
                                               .backoff_seed = random_word(),
                                               .is_first = number_ == 0,
                                               .redirects = cluster_.get(),
                                               .number = Cluster::kSeed},
                                   shared.config.upstream, std::move(target));
    if (cache_ != nullptr) node_->bound_staleness(shared.config.near_cache.max_staleness_ms);
    const bool may_be_cluster = kind == UpstreamUrl::Kind::Tcp || kind == UpstreamUrl::Kind::Unix;
    if (may_be_cluster && shared.config.upstream.cluster == "auto") {
        node_->coherence().leave_undecided();
        finder_ = std::make_unique<ClusterFinder>(
            parts.loop, *node_, [this](ClusterFinder::Finding finding, const std::string& reason) {
                on_mode_found(finding, reason);
            });
    }
    const bool is_alone = parts.count == 1;
    if (cache_ != nullptr) share_proofs(is_alone);
    clients_ =
        std::make_unique<ClientServer>(ClientServer::Parts{.loop = parts.loop,
                                                           .metrics = parts.metrics,
                                                           .log = shared.log,
                                                           .node = *node_,
                                                           .scratch = scratch_,
                                                           .hot_keys = hot_keys_,
                                                           .slow_log = shared.slow_log,
                                                           .all = shared.all,
                                                           .loops = parts.count,
                                                           .cluster = cluster_.get(),
                                                           .scripts = &shared.scripts,
                                                           .own_writes = shared.own_writes,
                                                           .exchange = is_alone ? nullptr : this,
                                                           .fill_loop = is_alone ? nullptr : this,
                                                           .segment = shared.segment},
                                       shared.config.limits);
}

std::span<char> Worker::reply_scratch() {
    return std::span(scratch_).first(kReplyScratchSize);
}

std::unique_ptr<Cluster> Worker::make_cluster() {
    return std::make_unique<Cluster>(
        Cluster::Parts{.loop = loop_,
                       .metrics = metrics_,
                       .log = shared_.log,
                       .scratch = reply_scratch(),
                       .events = *this,
                       .make_target =
                           [this](const UpstreamTarget& model, const Endpoint& endpoint) {
                               return make_target_at(model, endpoint, shared_);
                           },
                       .options = shared_.config.upstream,
                       .cluster_options = shared_.config.cluster,
                       .cache = cache_,
                       .own_writes = shared_.own_writes,
                       .is_first = number_ == 0,
                       .seed = random_word()});
}

Worker::~Worker() {
    clients_.reset();
    finder_.reset();
    // No other event loop, which may be gone, is told of proofs that end with their nodes.
    proofs_.reset();
    if (cluster_ != nullptr) cluster_->stop();
    node_.reset();
}

// Whoever stores into the near cache is asked: all nodes of all event loops. Called again when the
// node turns out to be one of a cluster.
void Worker::share_proofs(bool is_alone) {
    NodeCoherence& coherence = node_->coherence();
    ProofRounds& own =
        cluster_ == nullptr ? coherence.own_proofs() : cluster_->coherence().proofs();
    if (is_alone) {
        if (cluster_ != nullptr) coherence.share_cache(own, false);
        return;
    }
    if (proofs_ == nullptr) proofs_ = std::make_unique<SharedProofs>(mailbox_, own);
    proofs_->use(own);
    coherence.share_cache(*proofs_);
    if (cluster_ != nullptr) cluster_->coherence().share_cache(*proofs_);
}

void Worker::share_cache_with(Worker& other) {
    if (proofs_ != nullptr) proofs_->add_other(*other.proofs_);
}

void Worker::turn_to(std::unique_ptr<UpstreamTarget> target) {
    if (finder_ != nullptr) finder_->begin_anew();
    if (cluster_ != nullptr) target->url.make_seed();
    node_->topology().turn_to(std::move(target));
}

// The other nodes of a cluster get the same credentials.
void Worker::adopt_target() {
    node_->topology().adopt_target();
    if (cluster_ != nullptr) cluster_->set_access(node_->target());
}

void Worker::try_target(std::unique_ptr<UpstreamTarget> target, uint64_t trial) {
    trial_ = trial;
    if (cluster_ != nullptr) target->url.make_seed();
    node_->topology().try_target(std::move(target), *this);
}

void Worker::seek_primary(std::unique_ptr<UpstreamTarget> target, uint64_t trial) {
    trial_ = trial;
    node_->topology().seek_primary(std::move(target), *this);
}

void Worker::tell(std::function<void()> what) {
    if (number_ == 0) {
        what();
    } else {
        main_mailbox_.post(std::move(what));
    }
}

void Worker::start() {
    node_->start();
    if (cluster_ != nullptr) cluster_->start(*node_);
}

void Worker::on_health_changed(const UpstreamHealth& health) {
    if (finder_ != nullptr) finder_->look();
    if (health.is_ready) note_late_cluster();
    if (cluster_ != nullptr && !health.is_ready) cluster_->doubt();
    tell_health();
}

void Worker::on_mode_found(ClusterFinder::Finding finding, const std::string& reason) {
    was_cluster_ = node_->catalog().is_cluster();
    node_->coherence().decide(finding == ClusterFinder::Finding::Cluster);
    if (finding == ClusterFinder::Finding::Cluster) {
        cluster_ = make_cluster();
        node_->topology().join_cluster(*cluster_);
        if (cache_ != nullptr) share_proofs(proofs_ == nullptr);
        clients_->use_cluster(*cluster_);
        cluster_->start(*node_);
    }
    if (number_ == 0 && was_cluster_) {
        const std::string upstream = redacted(node_->target().url);
        if (cluster_ != nullptr) {
            shared_.log.info("cluster_found", {{"upstream", upstream},
                                               {"what",
                                                "HELLO says mode cluster: all its nodes "
                                                "are used (upstream.cluster)"}});
        } else {
            shared_.log.warning("cluster_not_used",
                                {{"upstream", upstream},
                                 {"reason", reason},
                                 {"what", "it is asked as one server, whose MOVED clients read"}});
        }
    }
    if (number_ == 0 && cluster_ == nullptr && shared_.own_writes != nullptr) {
        shared_.log.warning(
            "replicas_not_read",
            {{"upstream", redacted(node_->target().url)},
             {"what", "read_from = \"replica\" has no effect: the upstream is no cluster"}});
    }
    tell_health();
}

// Sessions of one server can't become those of a cluster.
void Worker::note_late_cluster() {
    const bool is_known =
        finder_ != nullptr && finder_->finding() != ClusterFinder::Finding::Undecided;
    if (!is_known || cluster_ != nullptr) return;
    const bool is_cluster = node_->catalog().is_cluster();
    if (std::exchange(was_cluster_, is_cluster) || !is_cluster || number_ != 0) return;
    shared_.log.warning("cluster_not_used",
                        {{"upstream", redacted(node_->target().url)},
                         {"reason", "it was no node of a cluster when nearkey started"},
                         {"what", "restart nearkey, that it asks all nodes"}});
}

// A cluster serves as long as some of its nodes do, whichever is asked for the commands.
const UpstreamHealth& Worker::health() {
    if (finder_ != nullptr && finder_->finding() == ClusterFinder::Finding::Undecided) {
        if (!node_->health().is_ready) return node_->health();
        cluster_health_.reason = "asking whether it is a cluster";
        return cluster_health_;
    }
    if (cluster_ == nullptr) return node_->health();
    const ClusterFacts facts = facts_of(*cluster_);
    metrics_.cluster_nodes = facts.nodes;
    metrics_.cluster_nodes_away = facts.nodes_away;
    metrics_.cluster_slots_unserved = facts.slots_unserved;
    if (!node_->catalog().knows_commands()) return node_->health();
    const bool serves = cluster_->serves();
    std::string degraded = serves ? degraded_of(*cluster_, facts) : std::string();
    metrics_.degraded = degraded.empty() ? 0 : 1;
    const bool is_news =
        serves != cluster_health_.is_ready || degraded.empty() != cluster_health_.degraded.empty();
    if (is_news) cluster_health_.since_ms = loop_.now_ms();
    cluster_health_.is_ready = serves;
    cluster_health_.reason = serves ? "PONG" : cluster_->why_not();
    cluster_health_.degraded = std::move(degraded);
    return cluster_health_;
}

void Worker::on_beat() {
    if (cluster_ == nullptr) return;
    set_gauges(*cluster_, node_->coherence().gauges(), metrics_);
    if (cluster_->replicas != nullptr) cluster_->replicas->set_gauges();
    log_degraded();
}

// What is over soon is not worth a line: nodes that are dialled at the start, a planned failover.
void Worker::log_degraded() {
    const bool is_degraded = !cluster_health_.degraded.empty();
    const bool lasts = cluster_health_.since_ms + kDegradedAfterMs <= loop_.now_ms();
    if (number_ != 0 || is_degraded == was_degraded_ || (is_degraded && !lasts)) return;
    was_degraded_ = is_degraded;
    if (is_degraded) {
        shared_.log.warning("cluster_degraded", {{"reason", cluster_health_.degraded}});
    } else if (cluster_health_.is_ready) {
        shared_.log.info("cluster_whole", {{"what", "all slots are served, by nodes that answer"}});
    }
}

void Worker::tell_health() {
    const UpstreamHealth& now = health();
    metrics_.ready = now.is_ready ? 1 : 0;
    tell([this, health = now] { workers_.on_worker_health(number_, health); });
}

void Worker::on_credentials_refused() {
    tell([this] { workers_.events().on_credentials_refused(); });
}

void Worker::on_demoted() {
    if (cluster_ != nullptr) {
        cluster_->doubt();
        return;
    }
    tell([this] { workers_.events().on_demoted(); });
}

void Worker::on_confirmation_wanted() {
    tell([this] { workers_.events().on_confirmation_wanted(); });
}

void Worker::on_confirmation_missing() {
    tell([this] { workers_.events().on_confirmation_missing(); });
}

void Worker::on_target_proven() {
    tell([this, trial = trial_] { workers_.on_worker_target_proven(trial); });
}

void Worker::on_target_refused(const std::string& reason) {
    tell([this, trial = trial_, reason] { workers_.on_worker_target_refused(trial, reason); });
}

bool Worker::hand_over(uint64_t listener, int fd, uint64_t id) {
    return workers_.hand_over(listener, fd, id);
}

void Worker::on_client_ended(uint64_t listener) {
    if (number_ == 0) return;
    tell([this, listener] { workers_.on_client_ended(number_, listener); });
}

void Worker::wake() {
    mailbox_.post([this] { cache_->tell_waiters(*this); });
}

}  // namespace nearkey
