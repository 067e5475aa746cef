// Reading the configuration again while serving. Everything that can fail is done first: the file
// and the secrets are read, what needs a restart is refused, a new upstream has to answer, new
// listeners are opened. What follows then only changes values in place, and can't fail.
//
//   reload() ──▶ Done | Refused                               both are final
//            ──▶ UnderWay ──PING answered──▶ Done             another upstream: until then the
//                         ──no answer──────▶ Refused          former configuration is in force
#include "nearkey/daemon/daemon.h"

#include "nearkey/base/wall_clock.h"
#include "nearkey/daemon/config_diff.h"
#include "nearkey/daemon/config_secrets.h"
#include "nearkey/daemon/core_dumps.h"
#include "nearkey/daemon/logging.h"
#include "nearkey/daemon/notify.h"

#include <unistd.h>
#include <algorithm>
#include <array>
#include <exception>
#include <string_view>
#include <utility>

namespace nearkey {

namespace {

// What is stored was chosen, or is to die, by what these said.
constexpr std::array<std::string_view, 5> kChosenBy = {
    "near_cache.keys", "near_cache.skip_keys", "near_cache.value_max", "near_cache.max_age_ms",
    "near_cache.max_staleness_ms"};

bool decides_what_is_stored(const ConfigChange& change) {
    return std::find(kChosenBy.begin(), kChosenBy.end(), change.key) != kChosenBy.end();
}

bool is_same_tls(const UpstreamTarget& one, const UpstreamTarget& other) {
    if (one.tls == nullptr || other.tls == nullptr) return one.tls == other.tls;
    return one.tls->fingerprint() == other.tls->fingerprint();
}

bool is_same_target(const UpstreamTarget& one, const UpstreamTarget& other) {
    return one.url == other.url && is_same_tls(one, other);
}

// What their files hold differently, in words; "" if they are the same.
std::string other_secrets(const UpstreamTarget& one, const UpstreamTarget& other) {
    const bool is_same_user = one.url.user == other.url.user;
    if (!is_same_user || one.url.password != other.url.password) return "another password";
    return is_same_tls(one, other) ? "" : "other certificates";
}

std::string joined(const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts)
        text += (text.empty() ? "" : "; ") + part;
    return text;
}

}  // namespace

std::unique_ptr<UpstreamTarget> Daemon::make_target(const Config& config) const {
    UpstreamUrl url = read_upstream(config, sources_.environment);
    if (managed_ != nullptr) {
        url.kind = UpstreamUrl::Kind::Unix;
        url.path = managed_->socket_path();
    }
    std::unique_ptr<TlsContext> tls;
    if (url.tls) tls = std::make_unique<TlsContext>(config.upstream, url.host);
    return std::make_unique<UpstreamTarget>(std::move(url), std::move(tls));
}

Workers::Targets Daemon::make_targets(const Config& config) const {
    Workers::Targets targets;
    while (targets.size() < config.server.workers)
        targets.push_back(make_target(config));
    return targets;
}

void Daemon::warn_of_open_secrets(const Config& config) {
    for (const std::string& warning : secret_warnings(sources_, config))
        log_.warning("password_exposed", {{"what", warning}});
}

AdminChange Daemon::reload() {
    ++metrics_.config_reloads_total;
    workers_->forget_target();
    reload_ = {AdminChange::State::UnderWay, metrics_.config_reloads_total, {}, {}};
    if (const std::string reason = why_no_reload(); !reason.empty()) {
        refuse_reload(reason);
        return reload_;
    }
    if (stage_ == Stage::Serving) notify_reloading();
    try {
        begin_reload();
    } catch (const std::exception& error) {
        refuse_reload(error.what());
    }
    return reload_;
}

std::string Daemon::why_no_reload() const {
    if (stage_ == Stage::Draining) return "nearkey is stopping";
    const bool is_upgrading = stage_ == Stage::Waiting || stage_ == Stage::Retiring ||
                              (successor_ != nullptr && !successor_->has_failed());
    return is_upgrading ? "an upgrade is under way, and the new nearkey reads the file itself" : "";
}

void Daemon::begin_reload() {
    next_ = std::make_unique<NextConfig>();
    const Config& next = next_->config = load_config(sources_);
    next_->changes = find_changes(config_, next);
    for (const ConfigChange& change : next_->changes)
        reload_.changes.push_back(change.text);
    check_next();
    static_cast<void>(doors(next));
    Workers::Targets targets = make_targets(next);
    note_other_files(*targets.front());
    const Workers::Pause pause(*workers_);
    if (is_same_target(*targets.front(), workers_->target())) {
        apply_next();
    } else if (workers_->health().is_ready) {
        reload_.reason = "asking " + redacted(targets.front()->url);
        workers_->try_target(std::move(targets), *this);
    } else {
        apply_next();
        workers_->turn_to(std::move(targets));
    }
}

// The options that name the files are the same, but not what is in them.
void Daemon::note_other_files(const UpstreamTarget& target) {
    const auto& changes = next_->changes;
    const bool is_named =
        std::any_of(changes.begin(), changes.end(),
                    [](const ConfigChange& change) { return change.key.starts_with("upstream."); });
    const std::string what = other_secrets(workers_->target(), target);
    if (!is_named && !what.empty()) {
        reload_.changes.push_back("upstream: the files hold " + what);
    }
}

// Throws if a change would only take effect at the next start.
void Daemon::check_next() const {
    std::vector<std::string> late;
    for (const ConfigChange& change : next_->changes) {
        if (change.needs_restart) late.push_back(change.text);
    }
    if (!late.empty()) throw ConfigError("this needs a restart: " + joined(late));
    const Config& next = next_->config;
    const bool is_managed = next.upstream.url == kManagedUrl;
    if (is_managed != (managed_ != nullptr)) {
        throw ConfigError("upstream.url: to or from managed: needs a restart");
    }
    if (next.near_cache.is_on() != (cache_ != nullptr)) {
        throw ConfigError("near_cache.max_staleness_ms: to or from 0 needs a restart");
    }
    const ListenAddress admin = plan(next).admin;
    if (!(admin == plan(config_).admin)) {
        throw ConfigError("server.listen: the admin socket would move to " + to_text(admin) +
                          ", which needs a restart; or name its present place in server.admin");
    }
}

// Throws if a listener can't be opened; then nothing has changed.
void Daemon::apply_next() {
    if (stage_ == Stage::Serving) {
        workers_->open_doors(doors(next_->config), [this] { return doors(next_->config); });
        workers_->start_accepting();
    }
    const std::vector<ConfigChange>& changes = next_->changes;
    const bool is_cache_void = std::any_of(changes.begin(), changes.end(), decides_what_is_stored);
    // A level that was chosen meanwhile stays, unless the configuration has another one now.
    const bool is_log_new =
        std::any_of(changes.begin(), changes.end(),
                    [](const ConfigChange& change) { return change.key.starts_with("log."); });
    config_ = std::move(next_->config);
    next_.reset();
    if (is_log_new) {
        apply_log_options(config_.log, sources_.environment, STDERR_FILENO, log_);
    }
    set_core_dumps(config_.server.core_dumps ? CoreDumps::Allowed : CoreDumps::Forbidden);
    if (is_cache_void && cache_ != nullptr) {
        cache_->clear(InvalidationCause::Options, Loop::boot_ms());
    }
    workers_->apply_options();
    if (admin_ != nullptr) admin_->set_mode(static_cast<mode_t>(config_.server.admin_mode));
    reload_.state = AdminChange::State::Done;
    reload_.reason.clear();
    metrics_.config_reload_success = 1;
    metrics_.config_reload_success_ms = static_cast<uint64_t>(wall_clock_ms());
    log_.info("reloaded", {{"changes", joined(reload_.changes)}});
    warn_of_open_secrets(config_);
    end_reload();
}

void Daemon::refuse_reload(const std::string& reason) {
    next_.reset();
    reload_.state = AdminChange::State::Refused;
    reload_.reason = reason;
    metrics_.config_reload_success = 0;
    log_.error("reload_refused", {{"reason", reason}, {"what", "nothing was changed"}});
    end_reload();
}

void Daemon::end_reload() {
    if (stage_ != Stage::Serving) return;
    notify_ready(health_text());
}

void Daemon::on_target_proven() {
    // All turn to it at once: nothing that one of them has read there is served by another before.
    const Workers::Pause pause(*workers_);
    try {
        if (const std::string reason = why_no_reload(); !reason.empty()) throw ConfigError(reason);
        apply_next();
    } catch (const std::exception& error) {
        workers_->forget_target();
        refuse_reload(error.what());
        return;
    }
    workers_->adopt_target();
}

void Daemon::on_target_refused(const std::string& reason) {
    refuse_reload("the new upstream does not serve: " + reason);
}

// Who changed the password in Valkey, or the certificates, has changed the files as well, or will.
void Daemon::on_credentials_refused() {
    try {
        Workers::Targets targets = make_targets(config_);
        credentials_problem_.clear();
        const std::string what = other_secrets(workers_->target(), *targets.front());
        if (what.empty()) return;
        workers_->set_access(std::move(targets));
        log_.info("credentials_read_again", {{"what", what}});
    } catch (const std::exception& error) {
        if (credentials_problem_ == error.what()) return;
        credentials_problem_ = error.what();
        log_.warning("credentials_unreadable", {{"reason", credentials_problem_}});
    }
}

}  // namespace nearkey
