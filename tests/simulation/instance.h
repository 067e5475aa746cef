// One nearkey of a World: its options, near cache and event loops, without their sockets.
// Owned by the world, whose private parts they use.
#pragma once

#include "nearkey/loop/mailbox.h"
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
class World::Worker final : private PoolEvents,
                            private SessionEvents,
                            private FillWaiterLoop,
                            private TargetEvents {
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
    };
    Worker(World& world, const Parts& parts)
        : world_(world),
          channel_(parts.channel),
          instance_(parts.instance),
          cache_(parts.cache),
          options_(parts.options),
          mailbox_(world.loop_),
          pool_(ConnectionPool::Parts{.loop = world.loop_,
                                      .metrics = metrics_,
                                      .log = parts.log,
                                      .scratch = scratch_,
                                      .events = *this,
                                      .cache = &parts.cache,
                                      .backoff_seed = parts.seed},
                options_, std::make_unique<UpstreamTarget>(parts.url, nullptr)),
          proofs_(mailbox_, pool_.own_proofs()),
          context(SessionContext{.loop = world.loop_,
                                 .limits = parts.limits,
                                 .metrics = metrics_,
                                 .log = parts.log,
                                 .pool = pool_,
                                 .events = *this,
                                 .encoded = {}}) {
        context.cache = &parts.cache;
        context.expected_from_bytes = 0;
        pool_.bound_staleness(parts.cache.options().max_staleness_ms);
    }
    void share_with(Worker& other) {
        pool_.share_cache(proofs_);
        proofs_.add_other(other.proofs_);
        context.fill_loop = this;
    }
    void start() { pool_.start(); }
    void try_target(const UpstreamUrl& url) {
        pool_.try_target(std::make_unique<UpstreamTarget>(url, nullptr), *this);
    }
    void forget_target() { pool_.forget_target(); }
    // To what was tried, or to `url` at once.
    void adopt_target() { pool_.adopt_target(); }
    void turn_to(const UpstreamUrl& url) {
        pool_.turn_to(std::make_unique<UpstreamTarget>(url, nullptr));
    }

private:
    // As the daemon, which listens only then.
    void on_health_changed(const UpstreamHealth& health) override {
        if (!health.is_ready || is_listening_) return;
        is_listening_ = true;
        world_.start_clients(channel_, context);
    }
    void on_credentials_refused() override {}
    void on_commands_changed() override {}
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
    const UpstreamOptions options_;
    bool is_listening_ = false;
    Metrics metrics_;
    std::vector<char> scratch_ = std::vector<char>(65536);
    Mailbox mailbox_;
    ConnectionPool pool_;
    SharedProofs proofs_;

public:
    SessionContext context;
};

// One nearkey: its options, its near cache, and up to three event loops.
class World::Instance final {
public:
    Instance(World& world, int channel, uint64_t seed)
        : upstream{world.valkeys_[0].get()}, world_(world) {
        channel_ = channel;
        Random& random = world.random_;
        constexpr uint64_t kBounds[] = {30, 100, 300, 1000};
        url_.kind = UpstreamUrl::Kind::Unix;
        url_.path = kServers[0];
        options_.connections = random.between(1, 2);
        options_.request_timeout_ms = random.between(100, 2000);
        options_.tombstone_timeout_ms = random.between(200, 3000);
        options_.backoff_min_ms = 5;
        options_.backoff_max_ms = 50;
        options_.connect_timeout_ms = 100;
        cache_options_.max_staleness_ms = kBounds[random.below(4)];
        if (random.one_in(8)) cache_options_.memory = 4096 << random.below(4);
        // So many writes have every key leave the cache.
        cache_options_.thrash_guard = random.one_in(8);
        cache_ = std::make_unique<NearCache>(cache_options_, metrics, seed);
        for (uint64_t i = random.between(1, 3); i > 0; --i) {
            options_.client_name = i == 1 ? ModelValkey::kFirstLoop : "other";
            workers_.push_back(std::make_unique<Worker>(world, Worker::Parts{.log = log_,
                                                                             .cache = *cache_,
                                                                             .options = options_,
                                                                             .limits = limits_,
                                                                             .url = url_,
                                                                             .channel = channel,
                                                                             .seed = seed + i,
                                                                             .instance = *this}));
        }
        for (const auto& worker : workers_) {
            for (const auto& other : workers_) {
                if (worker != other) worker->share_with(*other);
            }
        }
        for (const auto& worker : workers_)
            worker->start();
    }
    ~Instance() {
        workers_.clear();
        close(null_fd_);
    }
    // No answer is older; the clock has steps of a millisecond.
    uint64_t bound_us() const { return (cache_options_.max_staleness_ms + 1) * 1000; }
    size_t workers() const { return workers_.size(); }
    void check() const { cache_->check_invariants(); }
    // To the other server: once it is proven, or at once.
    void turn();
    void on_target_proven();
    void on_target_refused();

    Metrics metrics;
    Upstream upstream;

private:
    void turn_all();

    World& world_;
    int channel_ = 0;
    bool is_turning_ = false;  // once all event loops have proven the other server
    size_t unproven_ = 0;      // those that have not
    UpstreamUrl url_;
    UpstreamOptions options_;
    NearCacheOptions cache_options_;
    LimitOptions limits_;
    int null_fd_ = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Log log_{null_fd_, LogLevel::Error, metrics};
    std::unique_ptr<NearCache> cache_;
    std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace nearkey::simulation
