// One nearkey of a World: its options, near cache and event loops, without their sockets.
// Owned by the world, whose private parts they use.
#pragma once

#include "nearkey/loop/mailbox.h"
#include "nearkey/upstream/cluster_finder.h"
#include "nearkey/upstream/shared_proofs.h"
#include "world.h"

#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

namespace nearkey::simulation {

constexpr const char* kServers[] = {"here", "there"};

// One event loop of a nearkey, without its sockets.
class World::Worker final : private NodeEvents,
                            private SessionEvents,
                            private FillWaiterLoop,
                            private TargetEvents,
                            private ClusterEvents {
public:
    struct Parts {
        Log& log;
        NearCache& cache;
        UpstreamOptions options;
        const LimitOptions& limits;
        const UpstreamUrl& url;
        int channel;
        uint64_t seed;
        Instance& instance;
        bool is_alone;  // there is one event loop
    };
    Worker(World& world, const Parts& parts)
        : world_(world),
          channel_(parts.channel),
          instance_(parts.instance),
          cache_(parts.cache),
          log_(parts.log),
          options_(parts.options),
          is_alone_(parts.is_alone),
          seed_(parts.seed),
          mailbox_(world.loop_),
          cluster_(parts.url.kind == UpstreamUrl::Kind::Cluster ? make_cluster() : nullptr),
          node_(Node::Parts{.loop = world.loop_,
                            .metrics = metrics_,
                            .log = parts.log,
                            .scratch = scratch_,
                            .events = *this,
                            .cache = &parts.cache,
                            .backoff_seed = parts.seed,
                            .redirects = cluster_.get(),
                            .number = Cluster::kSeed},
                options_, std::make_unique<UpstreamTarget>(parts.url, nullptr)),
          proofs_(std::make_unique<SharedProofs>(mailbox_, node_.coherence().own_proofs())),
          context(SessionContext{.loop = world.loop_,
                                 .limits = parts.limits,
                                 .metrics = metrics_,
                                 .log = parts.log,
                                 .node = node_,
                                 .events = *this,
                                 .encoded = {}}) {
        context.ledgers.cache = &parts.cache;
        context.expected_from_bytes = 0;
        node_.bound_staleness(parts.cache.options().max_staleness_ms);
        if (cluster_ != nullptr) use_cluster();
        if (world.nodes_ == nullptr || cluster_ != nullptr) return;
        node_.coherence().leave_undecided();
        finder_ = std::make_unique<ClusterFinder>(
            world.loop_, node_, [this](ClusterFinder::Finding finding, const std::string&) {
                on_mode_found(finding == ClusterFinder::Finding::Cluster);
            });
    }
    ~Worker() {
        finder_.reset();
        proofs_.reset();
        if (cluster_ != nullptr) cluster_->stop();
    }
    void share_with(Worker& other) {
        node_.coherence().share_cache(*proofs_);
        proofs_->add_other(*other.proofs_);
        context.ledgers.fill_loop = this;
    }
    void start() {
        node_.start();
        if (cluster_ != nullptr) cluster_->start(node_);
    }
    // Of a cluster: whether it knows another owner of the slot than this one.
    bool knows_other(uint16_t slot, const std::string& owner) {
        return cluster_ != nullptr && cluster_->owner(slot).target().url.host != owner;
    }
    void try_target(const UpstreamUrl& url, uint64_t trial) {
        trial_ = trial;
        node_.topology().try_target(std::make_unique<UpstreamTarget>(url, nullptr), *this);
    }
    void seek_primary(const UpstreamUrl& url, uint64_t trial) {
        trial_ = trial;
        node_.topology().seek_primary(std::make_unique<UpstreamTarget>(url, nullptr), *this);
    }
    void forget_target() { node_.topology().forget_target(); }
    void confirm_primary() { node_.confirm_primary(); }
    uint64_t heard_us() const { return world_.network_.heard_us(&metrics_); }
    bool is_connected() const { return metrics_.upstream_connections > 0; }
    // To what was tried, or to `url` at once.
    void adopt_target() { node_.topology().adopt_target(); }
    void turn_to(const UpstreamUrl& url) {
        node_.topology().turn_to(std::make_unique<UpstreamTarget>(url, nullptr));
    }

private:
    // As the daemon, which listens only then.
    void on_health_changed(const UpstreamHealth& health) override;
    void on_serving_changed() override { on_health_changed(node_.health()); }
    std::unique_ptr<Cluster> make_cluster();
    void use_cluster();
    void on_mode_found(bool is_cluster);
    void on_credentials_refused() override {}
    void on_commands_changed() override {}
    void on_demoted() override;
    void on_confirmation_wanted() override;
    void on_session_ended(Session& session) override {
        for (auto& client : world_.clients_) {
            if (client->is_of(session)) client->on_ended();
        }
    }
    void on_memory_exceeded() override {}
    void on_target_proven() override;
    void on_target_refused(const std::string&) override;
    // FillWaiterLoop: what others close is told as if on another thread.
    bool is_here() const override { return false; }
    void wake() override {
        mailbox_.post([this] { cache_.tell_waiters(*this); });
    }

    World& world_;
    const int channel_;
    Instance& instance_;
    NearCache& cache_;
    Log& log_;
    const UpstreamOptions options_;
    const bool is_alone_;
    const uint64_t seed_;
    const ClusterOptions cluster_options_{};
    bool is_listening_ = false;
    uint64_t trial_ = 0;
    Metrics metrics_;
    std::vector<char> scratch_ = std::vector<char>(65536);
    Mailbox mailbox_;
    std::unique_ptr<Cluster> cluster_;       // null: it is one server, or not known to be none
    std::unique_ptr<ClusterFinder> finder_;  // null: it is known from the start
    Node node_;
    std::unique_ptr<SharedProofs> proofs_;

public:
    SessionContext context;
};

// One nearkey: its options, its near cache, and up to three event loops.
class World::Instance final : private ClusterOracle {
public:
    Instance(World& world, int channel, uint64_t seed)
        : upstream{world.valkeys_[0].get(), world.valkeys_[0]->reign}, world_(world) {
        channel_ = channel;
        Random& random = world.random_;
        constexpr uint64_t kBounds[] = {30, 100, 300, 1000};
        // Behind Sentinels, if they have something to say.
        url_.kind = world.failovers_ ? UpstreamUrl::Kind::Sentinel : UpstreamUrl::Kind::Unix;
        if (world.nodes_) {
            use_nodes();
        } else {
            server() = kServers[0];
        }
        constexpr uint64_t kSuspectAfter[] = {50, 100, 300, 1000};
        options_.suspect_after_ms = kSuspectAfter[random.below(world.is_quiet_ ? 2 : 4)];
        options_.connections = random.between(1, 2);
        options_.request_timeout_ms = random.between(100, 2000);
        options_.tombstone_timeout_ms = random.between(200, 3000);
        options_.backoff_min_ms = 5;
        options_.backoff_max_ms = 50;
        options_.connect_timeout_ms = 100;
        cache_options_.max_staleness_ms = kBounds[random.below(world.is_quiet_ ? 2 : 4)];
        if (random.one_in(8)) cache_options_.memory = 4096 << random.below(4);
        // So many writes have every key leave the cache.
        cache_options_.thrash_guard = random.one_in(8);
        cache_ = std::make_unique<NearCache>(cache_options_, metrics, seed);
        if (world.has_segments_) {
            segment_ = std::make_unique<SegmentRig>(SharedReplies::kSizeMin);
            cache_->shared_replies().begin(segment_->memory(), {seed, seed});
        }
        const uint64_t count = random.between(1, 3);
        for (uint64_t i = count; i > 0; --i) {
            options_.client_name = i == 1 ? ModelValkey::kFirstLoop : "other";
            workers_.push_back(
                std::make_unique<Worker>(world, Worker::Parts{.log = log_,
                                                              .cache = *cache_,
                                                              .options = options_,
                                                              .limits = limits_,
                                                              .url = url_,
                                                              .channel = channel,
                                                              .seed = seed + i,
                                                              .instance = *this,
                                                              .is_alone = count == 1}));
        }
        for (const auto& worker : workers_) {
            for (const auto& other : workers_) {
                if (worker != other) worker->share_with(*other);
            }
        }
        for (const auto& worker : workers_)
            worker->start();
        upstream.is_silent = [this] { return is_silent(); };
    }
    ~Instance() {
        workers_.clear();
        close(null_fd_);
    }
    // No answer is older; the clock has steps of a millisecond.
    uint64_t bound_us() const { return (cache_options_.max_staleness_ms + 1) * 1000; }
    size_t workers() const { return workers_.size(); }
    const SegmentRig* segment() const { return segment_.get(); }
    void check() const { cache_->check_invariants(); }
    // To the other server: once it is proven, or at once.
    void turn();
    // Who is the primary, some time later; it is tried, until it is there.
    void ask_for_primary(uint64_t delay_us);
    void on_target_proven(uint64_t trial);
    void on_target_refused(uint64_t trial);
    void on_demoted();
    void on_confirmation_wanted();

    Metrics metrics;
    Upstream upstream;

private:
    void turn_all();
    // The URL names some of the nodes, or one as if it were no cluster.
    void use_nodes();
    // ClusterOracle
    void note_expiry(const KeyName& key) override;
    Reign& oldest_shown(const KeyName& key) override;
    bool has_returned(uint16_t slot, uint64_t since_us) const override;
    bool has_moved(uint16_t slot, uint64_t since_us) const override;
    bool has_one_loop() const override { return workers_.size() == 1; }
    void seek_primary();
    void forget_target();
    // What the URL names.
    std::string& server() { return url_.is_tcp() ? url_.host : url_.path; }
    bool is_silent() const;

    World& world_;
    int channel_ = 0;
    bool is_turning_ = false;  // once all event loops have proven the other server
    bool is_seeking_ = false;  // that is as the primary
    bool is_asking_ = false;
    uint64_t trial_ = 0;
    size_t unproven_ = 0;  // those that have not
    std::string former_{};
    UpstreamUrl url_;
    UpstreamOptions options_;
    NearCacheOptions cache_options_;
    LimitOptions limits_;
    int null_fd_ = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Log log_{null_fd_, LogLevel::Error, metrics};
    std::unique_ptr<SegmentRig> segment_{};  // null: there is no shared memory
    std::unique_ptr<NearCache> cache_;
    std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace nearkey::simulation
