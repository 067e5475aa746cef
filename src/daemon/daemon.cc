#include "nearkey/daemon/daemon.h"

#include "nearkey/base/check.h"
#include "nearkey/base/random.h"
#include "nearkey/daemon/command_line.h"
#include "nearkey/daemon/config_secrets.h"
#include "nearkey/daemon/notify.h"
#include "nearkey/daemon/process_limits.h"

#include <fmt/format.h>

#include <malloc.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <utility>
#include <variant>

namespace nearkey {

namespace {

constexpr uint64_t kFinishMs = 200;
constexpr uint64_t kSecondMs = 1000;

// A signal that arrives once nobody listens for it would end us in place of our exit code.
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
    NEARKEY_CHECK(problem.empty());  // load_config() has seen it.
    return rules;
}

ClientTerms terms_of(const Listener& listener) {
    const ListenerOptions& options = listener.options;
    Endpoint announced{listener.address.host, listener.address.port};
    if (!options.announce.empty()) announced = std::get<Endpoint>(parse_endpoint(options.announce));
    return {.limits = options.limits,
            .database = static_cast<int>(options.database),
            .cache_use = options.near_cache ? CacheUse::On : CacheUse::Off,
            .shared_memory = options.shared_memory,
            .when_down = options.when_down == "close" ? WhenDown::Close : WhenDown::Error,
            .face = options.face == "cluster" ? Face::Cluster : Face::Standalone,
            .reads_replicas = options.read_from == "replica",
            .announced = std::move(announced)};
}

std::string managed_directory(const Config& config, const Environment& environment) {
    if (!config.managed.directory.empty()) return config.managed.directory;
    return std::filesystem::path(unix_listen_path(config, environment)).parent_path();
}

// The address in the form of an inherited socket's.
std::string bound_address(const ClientServer::Door& door) {
    constexpr std::string_view kTcp = "tcp:";
    return door.address.substr(door.address.starts_with(kTcp) ? kTcp.size() : 0);
}

}  // namespace

Daemon::Daemon(const Config& config, const ConfigSources& sources)
    : sources_(sources),
      config_(config),
      inherited_(listen_variables(sources.environment)),
      foreign_(foreign_addresses(inherited_)),
      log_(STDERR_FILENO, LogLevel::Info, metrics_),
      slow_log_(config_.slow_log, key_hash_, log_, metrics_),
      scripts_(config_.cluster, metrics_),
      password_command_(loop_, metrics_, log_, config_.upstream.password_command, *this),
      drain_timer_(loop_,
                   [this] {
                       log_.warning("drain_timeout", {});
                       loop_.stop();
                   }),
      watchdog_timer_(loop_,
                      [this] {
                          if (workers_->have_turned()) notify_watchdog();
                      }),
      second_timer_(loop_, [this] { on_second(); }) {
    apply_log_options(config.log, sources.environment, STDERR_FILENO, log_);
    second_timer_.start_repeating(kSecondMs);
    watch_signals();
    // A user that does not exist is found now, not when serving.
    warn_of_hidden_accounts(doors(config_), log_);
    set_core_dumps(config_.server);
    warn_of_few_descriptors(config, log_);
    make_upstreams();
    Workers::Targets targets = upstreams_->make_targets(config_, {}, {});
    log_.info("starting",
              {{"version", NEARKEY_VERSION}, {"upstream", redacted(targets.front()->url)}});
    warn_of_open_secrets(sources_, config_, log_);
    make_stores();
    all_metrics_.add(metrics_);
    workers_ = std::make_unique<Workers>(
        Workers::Parts{loop_, metrics_, *this},
        WorkerShared{all_metrics_, config_, log_, stores_.cache.get(), stores_.own_writes.get(),
                     key_hash_, slow_log_, scripts_, stores_.segment.get()},
        std::move(targets));
    const DaemonParts parts{loop_,
                            metrics_,
                            all_metrics_,
                            log_,
                            slow_log_,
                            sources_,
                            config_,
                            stores_.cache.get(),
                            stores_.own_writes.get(),
                            *workers_,
                            *upstreams_};
    failover_ = std::make_unique<Failover>(parts);
    memory_ = std::make_unique<MemoryWatch>(loop_, metrics_, log_, stores_.cache.get());
    reload_ = std::make_unique<Reload>(parts, *failover_, static_cast<ReloadEvents&>(*this));
    succession_ = std::make_unique<Succession>(parts, static_cast<SuccessionEvents&>(*this),
                                               inherited_.take_channel());
    admin_view_ = std::make_unique<AdminView>(parts, history_, *failover_, *reload_, *succession_);
    http_ = std::make_unique<HttpServers>(parts, inherited_, *admin_view_);
    if (!succession_->had_predecessor()) start_http();
}

void Daemon::start_http() {
    http_->bind(plan(config_));
    http_->start();
}

void Daemon::make_upstreams() {
    if (config_.upstream.url == kManagedUrl) start_managed_server();
    upstreams_ = std::make_unique<UpstreamMaker>(UpstreamMaker::Parts{
        loop_, metrics_, log_, sources_.environment, password_command_.password(),
        managed_ == nullptr ? "" : managed_->socket_path()});
}

void Daemon::make_stores() {
    if (reads_replicas(config_)) stores_.own_writes = std::make_unique<OwnWrites>(Loop::boot_ms());
    if (!config_.near_cache.is_on()) return;
    stores_.cache = std::make_unique<NearCache>(config_.near_cache, metrics_, random_word());
    stores_.segment = std::make_unique<SharedSegment>(*stores_.cache, metrics_, log_);
    stores_.segment->make(shared_memory_size(config_), shared_memory_terms(config_));
}

// Readers have it no more, before anything that follows is true.
void Daemon::end_segment() {
    const Workers::Pause pause(*workers_);
    if (stores_.segment != nullptr) stores_.segment->end();
}

void Daemon::start_managed_server() {
    const Environment& environment = sources_.environment;
    managed_ = std::make_unique<ManagedServer>(
        loop_, log_, metrics_,
        ManagedServerOptions{.server = config_.managed.server,
                             .memory_bytes = config_.managed.memory,
                             .directory = managed_directory(config_, environment),
                             .backoff_min_ms = config_.upstream.backoff_min_ms,
                             .backoff_max_ms = config_.upstream.backoff_max_ms,
                             .seed = random_word()});
}

Daemon::~Daemon() {
    memory_.reset();
    http_.reset();
    password_command_.end();
    reload_->end();
    const bool is_over = workers_->end(kFinishMs);
    failover_.reset();
    stores_.segment.reset();
    stores_.cache.reset();
    managed_.reset();
    block_late_signals();
    signals_.clear();
    drain_timer_.stop();
    watchdog_timer_.stop();
    second_timer_.stop();
    // Not before: this tells the other nearkey that we are gone.
    succession_->end();
    // Everything that others can see is gone. libuv's threads may still wait; they can't be
    // stopped, and are not worth waiting for.
    if (!loop_.finish(kFinishMs) || !is_over) _exit(exit_code_);
}

void Daemon::watch_signals() {
    std::signal(SIGPIPE, SIG_IGN);
    for (const int signum : {SIGTERM, SIGINT}) {
        signals_.push_back(
            std::make_unique<SignalWatch>(loop_, signum, [this] { on_stop_signal(); }));
    }
    signals_.push_back(
        std::make_unique<SignalWatch>(loop_, SIGUSR2, [this] { succession_->begin(); }));
    signals_.push_back(std::make_unique<SignalWatch>(loop_, SIGHUP, [this] { reload_->begin(); }));
}

int Daemon::run() {
    history_.note(succession_->had_predecessor() ? HistoryEvent::Upgraded : HistoryEvent::Started,
                  "nearkey " NEARKEY_VERSION, Loop::boot_ms());
    if (password_command_.is_configured()) {
        stage_ = Stage::Locked;
        history_.note_health(false, workers_->health().reason, "", Loop::boot_ms());
        if (!succession_->had_predecessor()) notify_status("waiting for the password's command");
        password_command_.ask();
    } else {
        start_upstream();
    }
    // Twice as often as needed, and only from the loop: if it hangs, systemd hears nothing. A hang
    // of another loop is noticed one interval later.
    if (const uint64_t interval_ms = watchdog_ms(); interval_ms > 0) {
        const uint64_t share = config_.server.workers > 1 ? 4 : 2;
        watchdog_timer_.start_repeating(std::max(interval_ms / share, uint64_t{1}));
    }
    loop_.run();
    log_.info("stopped", {});
    return exit_code_;
}

void Daemon::start_upstream() {
    stage_ = Stage::Starting;
    workers_->start();
    failover_->begin(upstreams_->make_watch(config_), {});
    if (!succession_->had_predecessor()) notify_status("connecting to Valkey");
}

// Without the password Valkey is not connected to: where a certificate can't be read just now, this
// is called again.
void Daemon::on_password() {
    if (reload_->waits_for_password()) return;  // it proves the password first
    if (reload_->take_credentials() && stage_ == Stage::Locked) start_upstream();
}

void Daemon::on_run_ended(const std::string& problem) {
    reload_->on_password_run_ended(problem);
}

void Daemon::on_credentials_refused() {
    password_command_.ask_after_refusal();
    reload_->take_credentials();
}

void Daemon::on_health_changed(const UpstreamHealth& health) {
    history_.note_health(health.is_ready, health.reason, health.degraded, Loop::boot_ms());
    if (health.is_ready && stage_ == Stage::Starting) {
        open();
    } else if (stage_ == Stage::Serving ||
               (stage_ == Stage::Starting && !succession_->had_predecessor())) {
        notify_status(health_text());
        look_at_sockets();
    }
}

std::string Daemon::health_text() const {
    const UpstreamHealth& health = workers_->health();
    if (!health.is_ready) return "not ready: " + health.reason;
    return health.degraded.empty() ? "ready" : "degraded: " + health.degraded;
}

// From here on a client that connects waits to be accepted.
void Daemon::open() {
    try {
        std::vector<ClientServer::Door> all = doors(config_);
        for (ClientServer::Door& door : all)
            door.bound = inherited_.take(bound_address(door));
        workers_->open_doors(std::move(all), [this] { return doors(config_); });
        // All that can fail is done when the old nearkey hears of us.
        if (!http_->has_started()) http_->bind(plan(config_));
    } catch (const std::runtime_error& error) {
        fail_to_listen(error);
        return;
    }
    if (succession_->awaits_predecessor()) {
        stage_ = Stage::Waiting;
        succession_->say_ready();
    } else {
        start_serving();
    }
}

void Daemon::start_serving() {
    stage_ = Stage::Serving;
    inherited_.drop_rest();
    try {
        if (!http_->has_started()) http_->start();
    } catch (const std::runtime_error& error) {
        fail_to_listen(error);
        return;
    }
    give_back_spare_memory();  // Its first look: the memory needed without clients.
    workers_->start_accepting();
    const bool is_suspended = stores_.cache != nullptr && stores_.cache->is_suspended();
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

// Throws ConfigError if a listener names a user or a group that does not exist.
std::vector<ClientServer::Door> Daemon::doors(const Config& config) const {
    std::vector<ClientServer::Door> all;
    for (const Listener& listener : plan(config).listeners) {
        const ListenerAccounts accounts = resolve_accounts(listener);
        const bool is_tcp = listener.address.kind == ListenAddress::Kind::Tcp;
        all.push_back({.address = (is_tcp ? "tcp:" : "") + to_text(listener.address),
                       .backlog = static_cast<int>(config.server.backlog),
                       .file = {listener.options.mode, accounts.owner, accounts.group},
                       .peers = {accounts.allow_users, accounts.allow_groups},
                       .terms = terms_of(listener),
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
    reload_->look();
    if (stage_ == Stage::Locked && !password_command_.password().empty()) on_password();
    // What is known of an absence later says more: at first a connection has only ended.
    const UpstreamHealth& health = workers_->health();
    if (!health.is_ready) {
        history_.note_health(false, health.reason, health.degraded, Loop::boot_ms());
    }
    history_.look(Loop::boot_ms(), all_metrics_, workers_->server().address);
    reap_orphans();
}

void Daemon::reap_orphans() {
    if (getpid() != 1) return;
    reap_others(std::array{password_command_.pid(), managed_ == nullptr ? 0 : managed_->pid()});
}

// Not during an upgrade: another nearkey has our sockets too.
void Daemon::look_at_sockets() {
    const bool is_alone = !succession_->has_successor() && !succession_->has_predecessor();
    if (stage_ != Stage::Serving || !is_alone) return;
    metrics_.sockets_lost = workers_->mend_sockets(workers_->health().is_ready);
    try {
        if (http_->mend_sockets()) ++metrics_.sockets_lost;
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

std::string Daemon::why_no_reload() const {
    if (stage_ == Stage::Draining) return "nearkey is stopping";
    if (stage_ == Stage::Locked) return "upstream.password_command has told no password yet";
    const bool is_upgrading =
        stage_ == Stage::Waiting || stage_ == Stage::Retiring || succession_->has_successor();
    return is_upgrading ? "an upgrade is under way, and the new nearkey reads the file itself" : "";
}

bool Daemon::ask_password() {
    password_command_.ask();
    return password_command_.is_configured();
}

void Daemon::on_reload_begun() {
    if (stage_ == Stage::Serving) notify_reloading();
}

void Daemon::check_next(const Config& next) const {
    const bool is_managed = next.upstream.url == kManagedUrl;
    if (is_managed != (managed_ != nullptr)) {
        throw ConfigError("upstream.url: to or from managed: needs a restart");
    }
    if (next.near_cache.is_on() != (stores_.cache != nullptr)) {
        throw ConfigError("near_cache.max_staleness_ms: to or from 0 needs a restart");
    }
    // Writes that are in flight then would not be known.
    if (reads_replicas(next) && stores_.own_writes == nullptr) {
        throw ConfigError("read_from = \"replica\" at the first [[listener]] needs a restart");
    }
    HttpServers::check_next(plan(config_), plan(next));
    static_cast<void>(doors(next));
}

void Daemon::open_doors_of(const Config& next) {
    warn_of_hidden_accounts(doors(next), log_);
    auto opened = http_->has_started() ? http_->open_next(plan(next)) : nullptr;
    if (stage_ == Stage::Serving) {
        workers_->open_doors(doors(next), [this, &next] { return doors(next); });
        workers_->start_accepting();
    }
    if (http_->has_started()) http_->turn_to(plan(next), std::move(opened));
}

void Daemon::apply_options() {
    set_core_dumps(config_.server);
    if (stores_.segment != nullptr) {
        const Workers::Pause pause(*workers_);
        stores_.cache->shared_replies().apply_options();
        stores_.segment->make(shared_memory_size(config_), shared_memory_terms(config_));
    }
    workers_->apply_options();
    http_->apply_options();
    password_command_.apply_options();
}

void Daemon::on_reload_ended(const AdminChange& change, bool is_renewal) {
    const bool is_done = change.state == AdminChange::State::Done;
    const std::string changes =
        change.changes.empty() ? "nothing was changed" : in_one_line(change.changes);
    const std::string& words = is_done ? changes : change.reason;
    const HistoryEvent done =
        is_renewal ? HistoryEvent::CertificatesRenewed : HistoryEvent::Reloaded;
    const HistoryEvent refused =
        is_renewal ? HistoryEvent::CertificatesRefused : HistoryEvent::Refused;
    history_.note(is_done ? done : refused, words, Loop::boot_ms());
    if (stage_ == Stage::Serving) notify_ready(health_text());
}

std::string Daemon::why_no_upgrade() const {
    if (stage_ == Stage::Draining) return "nearkey is stopping";
    if (stage_ != Stage::Serving) return "Valkey was not there yet, and no client is served";
    return "";
}

void Daemon::retire() {
    stage_ = Stage::Retiring;
    end_segment();
    workers_->leave_sockets([this] { loop_.stop(); });
    http_->leave();
    watchdog_timer_.stop();
}

void Daemon::on_predecessor_left() {
    if (stage_ == Stage::Waiting) start_serving();
}

void Daemon::on_predecessor_gone() {
    if (stage_ == Stage::Serving) notify_status("ready");
}

void Daemon::give_back_spare_memory() {
    if (!spare_memory_.is_due(memory_figures(metrics_, all_metrics_))) return;
    workers_->shrink();
    if (stores_.cache != nullptr) stores_.cache->shrink();
    malloc_trim(0);
    ++metrics_.memory_given_back_total;
    spare_memory_.settle(memory_figures(metrics_, all_metrics_));
}

// The first signal drains, the second ends at once.
void Daemon::on_stop_signal() {
    if (stage_ == Stage::Draining) {
        loop_.stop();
        return;
    }
    if (stage_ != Stage::Retiring) succession_->end_successor();
    // In an upgrade the other nearkey may speak for the service.
    const bool is_another = stage_ == Stage::Retiring || stage_ == Stage::Waiting ||
                            (stage_ == Stage::Starting && succession_->had_predecessor());
    if (!is_another) {
        notify_stopping("draining " + std::to_string(all_metrics_.total(&Metrics::clients)) +
                        " clients");
    }
    drain_clients();
}

void Daemon::drain_clients() {
    stage_ = Stage::Draining;
    end_segment();
    admin_view_->on_draining();
    log_.info("draining",
              {{"clients", static_cast<int64_t>(all_metrics_.total(&Metrics::clients))}});
    drain_timer_.start_once(config_.server.drain_timeout_ms);
    workers_->drain([this] { loop_.stop(); });
}

}  // namespace nearkey
