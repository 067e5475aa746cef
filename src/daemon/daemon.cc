#include "nearkey/daemon/daemon.h"

#include "nearkey/base/check.h"
#include "nearkey/base/random.h"
#include "nearkey/daemon/command_line.h"
#include "nearkey/daemon/config_secrets.h"
#include "nearkey/daemon/core_dumps.h"
#include "nearkey/daemon/descriptors.h"
#include "nearkey/daemon/logging.h"
#include "nearkey/daemon/notify.h"

#include <fmt/format.h>

#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <variant>

namespace nearkey {

namespace {

constexpr uint64_t kFinishMs = 200;
constexpr uint64_t kSecondMs = 1000;
constexpr int kAdminBacklog = 64;

// One that arrives once nobody listens for it would end us in place of our exit code.
void block_late_signals() {
    sigset_t late;
    sigemptyset(&late);
    for (const int signum : {SIGTERM, SIGINT, SIGHUP, SIGUSR2})
        sigaddset(&late, signum);
    pthread_sigmask(SIG_BLOCK, &late, nullptr);
}

std::vector<AccessRule> rules_of(const ListenerOptions& options) {
    std::vector<AccessRule> rules;
    const std::string problem = parse_access_rules(options.commands, rules);
    CHECK(problem.empty());  // load_config() has seen it.
    return rules;
}

ClientTerms terms_of(const ListenerOptions& options) {
    return {.limits = options.limits,
            .database = static_cast<int>(options.database),
            .cache_use = options.near_cache ? CacheUse::On : CacheUse::Off,
            .when_down = options.when_down == "close" ? WhenDown::Close : WhenDown::Error};
}

std::string managed_directory(const Config& config, const std::vector<ListenAddress>& addresses,
                              const Environment& environment) {
    if (!config.managed.directory.empty()) return config.managed.directory;
    const auto unix_address = std::find_if(
        addresses.begin(), addresses.end(),
        [](const ListenAddress& address) { return address.kind == ListenAddress::Kind::Unix; });
    const std::string path =
        unix_address != addresses.end() ? unix_address->path : default_listen_path(environment);
    return std::filesystem::path(path).parent_path();
}

// The program that runs now, as it will be found when another one is on disk. A link that is turned
// to the next release is to be followed then, not now.
std::string path_of_program(const std::vector<std::string>& arguments) {
    std::error_code error;
    if (!arguments.empty() && arguments.front().find('/') != std::string::npos) {
        return std::filesystem::absolute(arguments.front(), error);
    }
    return std::filesystem::read_symlink("/proc/self/exe", error);
}

// As an inherited socket has it.
std::string bound_address(const ClientServer::Door& door) {
    constexpr std::string_view kTcp = "tcp:";
    return door.address.substr(door.address.starts_with(kTcp) ? kTcp.size() : 0);
}

}  // namespace

Daemon::Daemon(const Config& config, const ConfigSources& sources)
    : sources_(sources),
      config_(config),
      inherited_(listen_variables(sources.environment)),
      foreign_{inherited_.foreign_addresses(), inherited_.admin_address()},
      log_(STDERR_FILENO, LogLevel::Info, metrics_),
      slow_log_(config_.slow_log, key_hash_, log_, metrics_),
      drain_timer_(loop_,
                   [this] {
                       log_.warning("drain_timeout", {});
                       loop_.stop();
                   }),
      watchdog_timer_(loop_,
                      [this] {
                          if (workers_->have_turned()) notify_watchdog();
                      }),
      second_timer_(loop_, [this] { on_second(); }),
      program_(path_of_program(sources.arguments)),
      retire_timer_(loop_, [this] { drain_clients(); }) {
    const Environment& environment = sources.environment;
    apply_log_options(config.log, environment, STDERR_FILENO, log_);
    second_timer_.start_repeating(kSecondMs);
    watch_signals();
    // A user that there is not is known now, not when serving.
    warn_of_hidden_accounts(doors(config_), log_);
    set_core_dumps(config_.server.core_dumps ? CoreDumps::Allowed : CoreDumps::Forbidden);
    warn_of_few_descriptors(config, log_);
    if (config_.upstream.url == kManagedUrl) {
        managed_ = std::make_unique<ManagedServer>(
            loop_, log_, metrics_,
            ManagedServerOptions{.server = config.managed.server,
                                 .memory_bytes = config.managed.memory,
                                 .directory = managed_directory(
                                     config, listen_addresses(config, environment), environment),
                                 .backoff_min_ms = config.upstream.backoff_min_ms,
                                 .backoff_max_ms = config.upstream.backoff_max_ms,
                                 .seed = random_word()});
    }
    Workers::Targets targets = make_targets(config_);
    log_.info("starting",
              {{"version", NEARKEY_VERSION}, {"upstream", redacted(targets.front()->url)}});
    warn_of_open_secrets(config_);
    if (config_.near_cache.is_on()) {
        cache_ = std::make_unique<NearCache>(config_.near_cache, metrics_, random_word());
    }
    all_metrics_.add(metrics_);
    workers_ = std::make_unique<Workers>(
        Workers::Parts{loop_, metrics_, *this},
        WorkerShared{all_metrics_, config_, log_, cache_.get(), key_hash_, slow_log_},
        std::move(targets));
    memory_ = std::make_unique<MemoryWatch>(loop_, metrics_, log_, cache_.get());
    if (const int channel = inherited_.take_channel(); channel >= 0) {
        predecessor_ = std::make_unique<Predecessor>(loop_, channel, *this);
        suspend_near_cache();
    } else {
        start_admin();
    }
    metrics_.config_reload_success = 1;
}

Daemon::~Daemon() {
    memory_.reset();
    admin_.reset();
    const bool is_over = workers_->end(kFinishMs);
    cache_.reset();
    managed_.reset();
    block_late_signals();
    signals_.clear();
    drain_timer_.stop();
    watchdog_timer_.stop();
    second_timer_.stop();
    retire_timer_.stop();
    // Not before: this tells the other one that we are gone.
    predecessor_.reset();
    successor_.reset();
    // Everything that others can see is gone. What libuv's threads still wait for is not worth
    // waiting for, and they can't be stopped.
    if (!loop_.finish(kFinishMs) || !is_over) _exit(exit_code_);
}

void Daemon::watch_signals() {
    std::signal(SIGPIPE, SIG_IGN);
    for (const int signum : {SIGTERM, SIGINT}) {
        signals_.push_back(
            std::make_unique<SignalWatch>(loop_, signum, [this] { on_stop_signal(); }));
    }
    signals_.push_back(std::make_unique<SignalWatch>(loop_, SIGUSR2, [this] { upgrade(); }));
    signals_.push_back(std::make_unique<SignalWatch>(loop_, SIGHUP, [this] { reload(); }));
}

int Daemon::run() {
    workers_->start();
    if (predecessor_ == nullptr) notify_status("connecting to Valkey");
    // Twice as often as needed, and only from the loop: if it hangs, systemd hears nothing. Other
    // loops are heard of one time later.
    if (const uint64_t interval_ms = watchdog_ms(); interval_ms > 0) {
        const uint64_t share = config_.server.workers > 1 ? 4 : 2;
        watchdog_timer_.start_repeating(std::max(interval_ms / share, uint64_t{1}));
    }
    loop_.run();
    log_.info("stopped", {});
    return exit_code_;
}

void Daemon::on_health_changed(const UpstreamHealth& health) {
    if (health.is_ready && stage_ == Stage::Starting) {
        open();
    } else if (stage_ == Stage::Serving || (stage_ == Stage::Starting && predecessor_ == nullptr)) {
        notify_status(health_text());
        look_at_sockets();
    }
}

std::string Daemon::health_text() const {
    const UpstreamHealth& health = workers_->health();
    return health.is_ready ? "ready" : "not ready: " + health.reason;
}

void Daemon::start_admin() {
    if (admin_socket_ == nullptr) admin_socket_ = listen_for_admin();
    admin_ = std::make_unique<AdminServer>(loop_, log_, std::move(admin_socket_), *this);
    // One that an earlier nearkey has left to us may have another.
    admin_->set_mode(static_cast<mode_t>(config_.server.admin_mode));
}

std::unique_ptr<ListenSocket> Daemon::listen_for_admin() {
    const std::string address = to_text(plan(config_).admin);
    auto inherited = inherited_.take(address);
    if (inherited != nullptr) return inherited;
    return std::make_unique<ListenSocket>(
        address, kAdminBacklog, SocketFile{static_cast<mode_t>(config_.server.admin_mode)});
}

// From here on who connects waits to be accepted.
void Daemon::open() {
    try {
        std::vector<ClientServer::Door> all = doors(config_);
        for (ClientServer::Door& door : all)
            door.bound = inherited_.take(bound_address(door));
        workers_->open_doors(std::move(all), [this] { return doors(config_); });
        // All that can fail has happened when the old one hears of us.
        if (admin_ == nullptr) admin_socket_ = listen_for_admin();
    } catch (const std::runtime_error& error) {
        fail_to_listen(error);
        return;
    }
    if (predecessor_ != nullptr && !predecessor_->has_left()) {
        stage_ = Stage::Waiting;
        predecessor_->say_ready();
    } else {
        start_serving();
    }
}

void Daemon::start_serving() {
    stage_ = Stage::Serving;
    inherited_.drop_rest();
    try {
        if (admin_ == nullptr) start_admin();
    } catch (const std::runtime_error& error) {
        fail_to_listen(error);
        return;
    }
    give_back_spare_memory();  // Its first look: what is needed while nobody is there.
    workers_->start_accepting();
    const bool is_suspended = cache_ != nullptr && cache_->is_suspended();
    notify_ready(is_suspended ? "ready; the near cache rests until the old one is gone" : "ready");
    print_how_to_try();
}

void Daemon::fail_to_listen(const std::exception& error) {
    log_.error("listen_failed", {{"reason", error.what()}});
    exit_code_ = kExitFailed;
    loop_.stop();
}

ListenPlan Daemon::plan(const Config& config) const {
    return listen_plan(config, sources_.environment, foreign_);
}

// Throws ConfigError where a listener names a user or a group that there is not.
std::vector<ClientServer::Door> Daemon::doors(const Config& config) {
    std::vector<ClientServer::Door> all;
    for (const Listener& listener : plan(config).listeners) {
        const ListenerAccounts accounts = resolve_accounts(listener);
        const bool is_tcp = listener.address.kind == ListenAddress::Kind::Tcp;
        all.push_back({.address = (is_tcp ? "tcp:" : "") + to_text(listener.address),
                       .backlog = static_cast<int>(config.server.backlog),
                       .file = {listener.options.mode, accounts.owner, accounts.group},
                       .peers = {accounts.allow_users, accounts.allow_groups},
                       .terms = terms_of(listener.options),
                       .rules = rules_of(listener.options),
                       .bound = nullptr});
    }
    return all;
}

void Daemon::on_second() {
    log_.say_repeats();
    memory_->look();
    metrics_.client_memory_held_bytes = held_bytes(all_metrics_);
    give_back_spare_memory();
    look_at_sockets();
}

// Not during an upgrade: another nearkey has our sockets too.
void Daemon::look_at_sockets() {
    const bool is_alone = (successor_ == nullptr || successor_->has_failed()) &&
                          (predecessor_ == nullptr || predecessor_->is_gone());
    if (stage_ != Stage::Serving || !is_alone) return;
    metrics_.sockets_lost = workers_->mend_sockets(workers_->health().is_ready);
    try {
        if (admin_->mend_socket(metrics_)) ++metrics_.sockets_lost;
    } catch (const std::runtime_error& error) {
        fail_to_listen(error);
    }
}

void Daemon::print_how_to_try() const {
    const ListenAddress address = plan(config_).listeners.front().address;
    const std::string how = address.kind == ListenAddress::Kind::Unix
                                ? fmt::format("-s {}", address.path)
                                : fmt::format("-h {} -p {}", address.host, address.port);
    std::printf("nearkey is ready. Try:  valkey-cli %s\n", how.c_str());
    std::fflush(stdout);
}

// The first signal drains, the second ends at once.
void Daemon::on_stop_signal() {
    if (stage_ == Stage::Draining) {
        loop_.stop();
        return;
    }
    if (stage_ != Stage::Retiring) successor_.reset();
    // In an upgrade the other one may be who speaks for the service.
    const bool is_another = stage_ == Stage::Retiring || stage_ == Stage::Waiting ||
                            (stage_ == Stage::Starting && predecessor_ != nullptr);
    if (!is_another) {
        notify_stopping("draining " + std::to_string(all_metrics_.total(&Metrics::clients)) +
                        " clients");
    }
    drain_clients();
}

void Daemon::drain_clients() {
    stage_ = Stage::Draining;
    draining_since_ms_ = loop_.now_ms();
    log_.info("draining",
              {{"clients", static_cast<int64_t>(all_metrics_.total(&Metrics::clients))}});
    drain_timer_.start_once(config_.server.drain_timeout_ms);
    workers_->drain([this] { loop_.stop(); });
}

}  // namespace nearkey
