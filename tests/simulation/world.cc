#include "world.h"

#include "nearkey/loop/mailbox.h"
#include "nearkey/upstream/shared_proofs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <utility>

namespace nearkey::simulation {

namespace {
constexpr uint64_t kSecondUs = 1'000'000;
constexpr uint64_t kRunUs = 3 * kSecondUs;
constexpr int kInstances = 2;
constexpr uint64_t kClients = 6;  // of each
constexpr int kNobody = 99;       // the channel of who writes directly
}  // namespace

// One event loop of a nearkey, without its sockets.
class World::Worker final : private PoolEvents, private SessionEvents, private FillWaiterLoop {
public:
    struct Parts {
        Log& log;
        NearCache& cache;
        const UpstreamOptions& options;
        const LimitOptions& limits;
        const UpstreamUrl& url;
        int channel;
        uint64_t seed;
    };
    Worker(World& world, const Parts& parts)
        : world_(world),
          channel_(parts.channel),
          cache_(parts.cache),
          mailbox_(world.loop_),
          pool_(ConnectionPool::Parts{.loop = world.loop_,
                                      .metrics = metrics_,
                                      .log = parts.log,
                                      .scratch = scratch_,
                                      .events = *this,
                                      .cache = &parts.cache,
                                      .backoff_seed = parts.seed},
                parts.options, std::make_unique<UpstreamTarget>(parts.url, nullptr)),
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
    // FillWaiterLoop: what others close is told as if on another thread.
    bool is_here() const override { return false; }
    void wake() override {
        mailbox_.post([this] { cache_.tell_waiters(*this); });
    }

    World& world_;
    const int channel_;
    NearCache& cache_;
    bool is_listening_ = false;
    Metrics metrics_;
    std::vector<char> scratch_ = std::vector<char>(65536);
    Mailbox mailbox_;
    ConnectionPool pool_;
    SharedProofs proofs_;

public:
    SessionContext context;
};

// One nearkey: its options, its near cache, and one or two event loops.
class World::Instance final {
public:
    Instance(World& world, int channel, uint64_t seed) {
        Random& random = world.random_;
        constexpr uint64_t kBounds[] = {30, 100, 300, 1000};
        url_.kind = UpstreamUrl::Kind::Unix;
        url_.path = "simulated";
        options_.connections = random.between(1, 2);
        options_.request_timeout_ms = random.between(100, 2000);
        options_.tombstone_timeout_ms = random.between(200, 3000);
        options_.backoff_min_ms = 5;
        options_.backoff_max_ms = 50;
        options_.connect_timeout_ms = 100;
        cache_options_.max_staleness_ms = kBounds[random.below(4)];
        if (random.one_in(3)) cache_options_.memory = 2048 << random.below(4);
        cache_ = std::make_unique<NearCache>(cache_options_, metrics, seed);
        for (uint64_t i = random.between(1, 2); i > 0; --i) {
            workers_.push_back(std::make_unique<Worker>(world, Worker::Parts{.log = log_,
                                                                             .cache = *cache_,
                                                                             .options = options_,
                                                                             .limits = limits_,
                                                                             .url = url_,
                                                                             .channel = channel,
                                                                             .seed = seed + i}));
        }
        if (workers_.size() == 2) {
            workers_[0]->share_with(*workers_[1]);
            workers_[1]->share_with(*workers_[0]);
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

    Metrics metrics;

private:
    UpstreamUrl url_;
    UpstreamOptions options_;
    NearCacheOptions cache_options_;
    LimitOptions limits_;
    int null_fd_ = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Log log_{null_fd_, LogLevel::Error, metrics};
    std::unique_ptr<NearCache> cache_;
    std::vector<std::unique_ptr<Worker>> workers_;
};

World::World(uint64_t seed, const std::string& commands, bool is_traced)
    : random_(seed),
      events_(*loop_.raw()),
      network_(events_, random_),
      valkey_(events_, random_, network_, commands),
      is_traced_(is_traced),
      is_calm_(random_.one_in(3)),
      client_pause_us_(random_.between(200, 20'000)),
      writes_one_in_(is_calm_ ? random_.between(40, 300) : random_.between(2, 20)),
      write_pause_us_(random_.between(500, is_calm_ ? 200'000 : 20'000)),
      harm_pause_us_(random_.between(5'000, is_calm_ ? 2'000'000 : 400'000)),
      harm_us_(random_.between(5'000, 1'500'000)) {
    loop_.raw()->random = &random_;
    for (int i = 0; i < kInstances; ++i)
        instances_.push_back(std::make_unique<Instance>(*this, i, random_.below(UINT64_MAX)));
}

// Sessions end before their pools; what is planned holds nobody alive.
World::~World() {
    for (const auto& client : clients_)
        client->abort();
    clients_.clear();
    instances_.clear();
}

void World::run() {
    write_directly();
    maintain();
    do_harm();
    events_.at(kRunUs, [this] { loop_.stop(); });
    loop_.run();
#ifndef NEARKEY_SABOTAGE  // A broken rule may break what it keeps together, too.
    for (const auto& instance : instances_)
        instance->check();
#endif
}

uint64_t World::operations() const {
    uint64_t sum = 0;
    for (const auto& client : clients_)
        sum += client->operations;
    return sum;
}

uint64_t World::hits() const {
    uint64_t sum = 0;
    for (const auto& instance : instances_)
        sum += instance->metrics.near_cache_hits_total;
    return sum;
}

// Of both protocols in both databases, and two more; each event loop has its share of them.
void World::start_clients(int channel, SessionContext& context) {
    Judge& judge = *this;
    const Instance& instance = *instances_[static_cast<size_t>(channel)];
    for (uint64_t i = 0; i < kClients / instance.workers(); ++i) {
        const uint64_t kind = i < 4 ? i : random_.below(4);
        clients_.push_back(std::make_unique<SimulatedClient>(events_, random_, valkey_, judge));
        clients_.back()->start(context, {.channel = channel,
                                         .protocol = kind % 2 == 0 ? 2 : 3,
                                         .database = static_cast<int>(kind / 2),
                                         .pause_max_us = client_pause_us_,
                                         .bound_us = instance.bound_us(),
                                         .writes_one_in = writes_one_in_});
    }
}

void World::write_directly() {
    events_.after(random_.between(1, write_pause_us_), [this] { write_directly(); });
    if (network_.is_server_down || network_.server_frozen_until_us > events_.now_us) return;
    const int database = static_cast<int>(random_.below(ModelValkey::kDatabases));
    const uint64_t number = random_.below(kNames);
    const std::string name = name_of_key(number);
    const std::string value = next_value(random_, name);
    Words words = number % 2 == 0 ? Words{"SET", name, value} : Words{"HSET", name, "f", value};
    switch (random_.below(100)) {
        case 0:
            words = {"FLUSHALL"};
            break;
        case 1:
            words = {"SWAPDB", "0", "1"};
            break;
        case 2:
        case 3:
            words = {"DEL", name};
            break;
        case 4:
        case 5:
            words = {"PEXPIRE", name, std::to_string(random_.between(1, 300))};
            break;
        default:
            break;
    }
    const uint64_t now_us = events_.now_us;
    valkey_.execute_directly(database, words);
    const std::string line = joined(database, words);
    note("directly: " + line);
    for (const auto& [key, step] : valkey_.last_steps_of(line))
        valkey_.history.acknowledge(kNobody, key, step, now_us);
}

void World::maintain() {
    events_.after(random_.between(1'000, 300'000), [this] { maintain(); });
    if (network_.is_server_down || network_.server_frozen_until_us > events_.now_us) return;
    valkey_.expire_some();
    if (random_.one_in(8)) valkey_.overflow_tracking(random_.below(6));
}

void World::do_harm() {
    events_.after(random_.between(1, harm_pause_us_), [this] {
        harm();
        do_harm();
    });
}

void World::harm() {
    const uint64_t until_us = events_.now_us + random_.between(1, harm_us_);
    switch (random_.below(14)) {
        case 0:
        case 1:
            note("a connection is killed");
            network_.kill_any();
            return;
        case 2:
        case 3:
            network_.change_delays();
            return;
        case 4:
            note(fmt::format("the server is frozen until {} us", until_us));
            network_.server_frozen_until_us = until_us;
            return;
        case 5:
            if (random_.one_in(4) && !network_.is_server_down) restart_server();
            return;
        case 6:
        case 7:
            note(fmt::format("link {} is killed, which is known at {} us",
                             network_.kill_quietly(until_us), until_us));
            return;
        default:
            note(fmt::format("link {} is frozen until {} us", network_.freeze_any(until_us),
                             until_us));
    }
}

void World::restart_server() {
    note("the server is restarted, all is lost");
    valkey_.restart();
    network_.is_server_down = true;
    events_.after(random_.between(1, 200'000), [this] { network_.is_server_down = false; });
}

void World::note(const std::string& what) {
    if (is_traced_) trace += fmt::format("  {:>9} us  {}\n", events_.now_us, what);
}

void World::on_violation(const std::string& what, const KeyName& key) {
    violations.push_back(what);
    if (is_traced_) {
        trace += "  " + what + "\n  the key's steps:\n" + valkey_.history.told(key);
    }
    loop_.stop();
}

void World::on_answer(const std::string& line) {
    for (const char byte : line)
        digest_ = (digest_ ^ static_cast<unsigned char>(byte)) * 1099511628211ULL;
    note(line);
}

}  // namespace nearkey::simulation
