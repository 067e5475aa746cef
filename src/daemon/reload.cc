#include "nearkey/daemon/reload.h"

#include "nearkey/base/check.h"
#include "nearkey/base/wall_clock.h"
#include "nearkey/daemon/config_option.h"
#include "nearkey/daemon/config_secrets.h"

#include <unistd.h>
#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

namespace nearkey {

namespace {

// Two secrets that differ look the same.
std::string change_text(const std::string& key, const std::string& from, const std::string& to) {
    return key + ": " + (from == to ? "another secret" : from + " -> " + to);
}

void compare(const Option& option, const std::string& key, const Config& from, const Config& to,
             std::vector<ConfigChange>& changes) {
    if (is_same(option, from, to)) return;
    changes.push_back(
        {key, change_text(key, printed(option, from), printed(option, to)), option.needs_restart});
}

const ListenerOptions* find_listener(const Config& config, const std::string& address) {
    const auto found =
        std::find_if(config.listeners.begin(), config.listeners.end(),
                     [&](const ListenerOptions& listener) { return listener.address == address; });
    return found == config.listeners.end() ? nullptr : &*found;
}

// In the order of the table of options, then of the listeners.
std::vector<ConfigChange> find_changes(const Config& from, const Config& to) {
    std::vector<ConfigChange> changes;
    for (const Option& option : options())
        compare(option, std::string(option.key), from, to, changes);
    for (const ListenerOptions& listener : from.listeners) {
        const std::string name = "listener " + listener.address;
        const ListenerOptions* const next = find_listener(to, listener.address);
        if (next == nullptr) {
            changes.push_back({name, name + ": removed", false});
            continue;
        }
        const Config before = with_listener(listener);
        const Config after = with_listener(*next);
        for (const Option& option : listener_options())
            compare(option, name + " " + std::string(option.key), before, after, changes);
    }
    for (const ListenerOptions& listener : to.listeners) {
        const std::string name = "listener " + listener.address;
        if (find_listener(from, listener.address) == nullptr)
            changes.push_back({name, name + ": added", false});
    }
    return changes;
}

// Stored replies were chosen, or expire, by these options.
constexpr std::array<std::string_view, 5> kChosenBy = {
    "near_cache.keys", "near_cache.skip_keys", "near_cache.value_max", "near_cache.max_age_ms",
    "near_cache.max_staleness_ms"};

// A Sentinel that is just being started is asked again each second.
constexpr uint64_t kSentinelAttempts = 3;

// Certificates that were replaced are looked at when nothing has changed for so long, and again
// while they are refused: what refused them may be over.
constexpr uint64_t kRenewAfterMs = 2000;
constexpr uint64_t kRenewAgainMs = 10'000;

constexpr uint64_t kPasswordGraceMs = 5000;

bool decides_what_is_stored(const ConfigChange& change) {
    return std::find(kChosenBy.begin(), kChosenBy.end(), change.key) != kChosenBy.end();
}

// True if the Sentinels are others, or are asked in another way.
bool has_other_upstream(const std::vector<ConfigChange>& changes) {
    return std::any_of(changes.begin(), changes.end(), [](const ConfigChange& change) {
        return change.key == "upstream.url" || change.key.starts_with("upstream.tls_") ||
               change.key.starts_with("sentinel.");
    });
}

bool names_cluster(const Config& config) {
    return std::get<UpstreamUrl>(parse_url(config.upstream.url)).kind == UpstreamUrl::Kind::Cluster;
}

bool has_other_url(const std::vector<ConfigChange>& changes) {
    return std::any_of(changes.begin(), changes.end(),
                       [](const ConfigChange& change) { return change.key == "upstream.url"; });
}

bool is_same_tls(const UpstreamTarget& one, const UpstreamTarget& other) {
    if (one.tls == nullptr || other.tls == nullptr) return one.tls == other.tls;
    return one.tls->fingerprint() == other.tls->fingerprint();
}

// Which node of a cluster is asked may be another by now; its URL is the same.
bool is_same_target(const UpstreamTarget& next, const UpstreamTarget& former, bool is_cluster) {
    UpstreamUrl url = former.url;
    if (is_cluster) {
        url = next.url;
        url.user = former.url.user;
        url.password = former.url.password;
    }
    return next.url == url && is_same_tls(next, former);
}

// The differences between their files, in words; "" if they are the same.
std::string other_secrets(const UpstreamTarget& one, const UpstreamTarget& other) {
    const bool is_same_user = one.url.user == other.url.user;
    if (!is_same_user || one.url.password != other.url.password) return "another password";
    return is_same_tls(one, other) ? "" : "other certificates";
}

}  // namespace

std::string in_one_line(const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts)
        text += (text.empty() ? "" : "; ") + part;
    return text;
}

Reload::Reload(const DaemonParts& parts, Failover& failover, ReloadEvents& events)
    : parts_(parts),
      failover_(failover),
      events_(events),
      watch_timer_(parts.loop, [this] { on_watch(); }),
      certificates_seen_(certificates_seen(parts.config)) {
    parts_.metrics.config_reload_success = 1;
}

const AdminChange& Reload::begin() {
    ++parts_.metrics.config_reloads_total;
    parts_.workers.forget_target();
    end();
    change_ = {AdminChange::State::UnderWay, parts_.metrics.config_reloads_total, {}, {}};
    if (const std::string reason = events_.why_no_reload(); !reason.empty()) {
        refuse(reason);
        return change_;
    }
    events_.on_reload_begun();
    change_.reason = "asking upstream.password_command";
    waits_for_password_ = true;
    // Two runs; a program that nobody can end holds up no reload.
    wait_until_ms_ = parts_.loop.now_ms() + kPasswordGraceMs +
                     2 * parts_.config.upstream.password_command.timeout_ms;
    if (!events_.ask_password()) on_password_run_ended("");
    return change_;
}

// What the command has told, or told before, is the password for the next configuration, too.
void Reload::on_password_run_ended(const std::string& problem) {
    if (!std::exchange(waits_for_password_, false)) return;
    change_.reason.clear();
    try {
        if (const std::string reason = events_.why_no_reload(); !reason.empty())
            throw ConfigError(reason);
        if (!problem.empty()) {
            change_.changes.push_back("upstream.password_command: " + problem +
                                      "; the password that it told before is used");
        }
        read_next();
    } catch (const std::exception& error) {
        refuse(error.what());
        // It is for the upstream that stays.
        take_credentials();
    }
}

void Reload::look() {
    const uint64_t now_ms = parts_.loop.now_ms();
    if (waits_for_password_ && now_ms >= wait_until_ms_) on_password_run_ended("it does not end");
    const std::string seen = certificates_seen(parts_.config);
    if (seen == certificates_seen_) {
        refused_seen_.reset();
    } else if (seen != changed_seen_) {
        // A key comes with its certificate: both are to be there.
        changed_seen_ = seen;
        renew_at_ms_ = now_ms + kRenewAfterMs;
    } else if (now_ms >= renew_at_ms_) {
        renew_at_ms_ = now_ms + kRenewAgainMs;
        renew_certificates(seen);
    }
}

void Reload::renew_certificates(const std::string& seen) {
    if (!parts_.workers.health().is_ready) {
        if (take_credentials()) certificates_seen_ = seen;
        return;
    }
    const bool is_under_way = next_ != nullptr || waits_for_password_;
    if (is_under_way || !events_.why_no_reload().empty()) return;
    next_ = std::make_unique<Next>();
    next_->config = parts_.config;
    next_->is_renewal = true;
    next_->seen = seen;
    renewal_ = {AdminChange::State::UnderWay, 0, {}, {}};
    try {
        const Workers::Targets targets = parts_.upstreams.make_targets(
            parts_.config, failover_.primary(), parts_.workers.seeds());
        if (is_same_tls(parts_.workers.target(), *targets.front())) {
            next_.reset();
            certificates_seen_ = seen;
            return;
        }
        events_.on_reload_begun();
        try_next(failover_.primary());
    } catch (const std::exception& error) {
        refuse(error.what());
    }
}

void Reload::read_next() {
    next_ = std::make_unique<Next>();
    const Config& next = next_->config = load_config(parts_.sources);
    next_->changes = find_changes(parts_.config, next);
    std::vector<std::string> late;
    for (const ConfigChange& change : next_->changes) {
        change_.changes.push_back(change.text);
        if (change.needs_restart) late.push_back(change.text);
    }
    if (!late.empty()) throw ConfigError("this needs a restart: " + in_one_line(late));
    events_.check_next(next);
    next_->has_other_upstream = has_other_upstream(next_->changes);
    const bool is_cluster = !parts_.workers.seeds().empty() || names_cluster(next);
    if (is_cluster && has_other_url(next_->changes)) {
        throw ConfigError("this needs a restart: upstream.url, from or to a cluster's");
    }
    if (next_->has_other_upstream) next_->watch = parts_.upstreams.make_watch(next);
    if (next_->watch == nullptr || !parts_.workers.health().is_ready) {
        try_next(next_->has_other_upstream ? Endpoint{} : failover_.primary());
        return;
    }
    change_.reason =
        "asking the Sentinels of " + redacted(std::get<UpstreamUrl>(parse_url(next.upstream.url)));
    next_->watch->tell(*this);
    next_->watch->ask();
    watch_timer_.start_once(kSentinelAttempts * next.upstream.connect_timeout_ms);
}

// The next step may end the watch, which is calling.
void Reload::on_sentinel_word(const SentinelWord&) {
    if (next_ != nullptr && next_->primary.host.empty()) watch_timer_.start_once(0);
}

void Reload::on_watch() {
    if (next_ == nullptr || next_->watch == nullptr || !next_->primary.host.empty()) return;
    const std::optional<Endpoint> primary = next_->watch->wanted();
    try {
        if (const std::string reason = events_.why_no_reload(); !reason.empty())
            throw ConfigError(reason);
        if (primary) {
            try_next(*primary);
            return;
        }
        std::string reason;
        for (const SentinelFacts& sentinel : next_->watch->facts())
            reason += "; " + sentinel.address + ": " + sentinel.state;
        throw ConfigError("no Sentinel names a primary" + reason);
    } catch (const std::exception& error) {
        refuse(error.what());
    }
}

// `primary`: the one that Sentinels have named.
void Reload::try_next(const Endpoint& primary) {
    next_->primary = primary;
    const Workers::Pause pause(parts_.workers);
    const std::vector<Endpoint> seeds = parts_.workers.seeds();
    Workers::Targets targets = parts_.upstreams.make_targets(next_->config, primary, seeds);
    note_other_files(*targets.front());
    if (is_same_target(*targets.front(), parts_.workers.target(), !seeds.empty())) {
        apply_next();
    } else if (parts_.workers.health().is_ready) {
        change().reason = "asking " + redacted(targets.front()->url);
        parts_.workers.try_target(std::move(targets), *this);
    } else {
        apply_next();
        parts_.workers.turn_to(std::move(targets));
    }
}

// The options that name the files are the same, but not the contents.
void Reload::note_other_files(const UpstreamTarget& target) {
    const auto& changes = next_->changes;
    const bool is_named =
        std::any_of(changes.begin(), changes.end(),
                    [](const ConfigChange& change) { return change.key.starts_with("upstream."); });
    const std::string what = other_secrets(parts_.workers.target(), target);
    if (!is_named && !what.empty()) {
        change().changes.push_back("upstream: the files hold " + what);
    }
}

// Throws if a listener can't be opened; then nothing has changed.
void Reload::apply_next() {
    events_.open_doors_of(next_->config);
    if (next_->has_other_upstream) failover_.begin(std::move(next_->watch), next_->primary);
    const std::vector<ConfigChange>& changes = next_->changes;
    const bool is_cache_void = std::any_of(changes.begin(), changes.end(), decides_what_is_stored);
    // A level that was chosen meanwhile stays, unless the configuration has another one now.
    const bool is_log_new =
        std::any_of(changes.begin(), changes.end(),
                    [](const ConfigChange& change) { return change.key.starts_with("log."); });
    AdminChange& done = change();
    const bool is_renewal = next_->is_renewal;
    if (is_renewal) certificates_seen_ = next_->seen;
    parts_.config = std::move(next_->config);
    next_.reset();
    if (is_log_new) {
        apply_log_options(parts_.config.log, parts_.sources.environment, STDERR_FILENO, parts_.log);
    }
    if (is_cache_void && parts_.cache != nullptr) {
        parts_.cache->clear(InvalidationCause::Options, Loop::boot_ms());
    }
    events_.apply_options();
    done.state = AdminChange::State::Done;
    done.reason.clear();
    if (!is_renewal) {
        parts_.metrics.config_reload_success = 1;
        parts_.metrics.config_reload_success_ms = static_cast<uint64_t>(wall_clock_ms());
    }
    parts_.log.info(is_renewal ? "certificates_renewed" : "reloaded",
                    {{"changes", in_one_line(done.changes)}});
    warn_of_open_secrets(parts_.sources, parts_.config, parts_.log);
    events_.on_reload_ended(done, is_renewal);
}

void Reload::refuse(const std::string& reason) {
    AdminChange& refused = change();
    const bool is_renewal = next_ != nullptr && next_->is_renewal;
    bool is_news = true;
    if (is_renewal) {
        is_news = refused_seen_ != next_->seen || refused_reason_ != reason;
        refused_seen_ = next_->seen;
        refused_reason_ = reason;
    }
    next_.reset();
    refused.state = AdminChange::State::Refused;
    refused.reason = reason;
    if (!is_renewal) parts_.metrics.config_reload_success = 0;
    if (is_news) {
        parts_.log.error(is_renewal ? "certificates_refused" : "reload_refused",
                         {{"reason", reason}, {"what", "nothing was changed"}});
    }
    events_.on_reload_ended(refused, is_renewal);
}

void Reload::on_target_proven() {
    // All turn to it at once: no loop serves a reply that another has read there before.
    const Workers::Pause pause(parts_.workers);
    try {
        if (const std::string reason = events_.why_no_reload(); !reason.empty())
            throw ConfigError(reason);
        apply_next();
    } catch (const std::exception& error) {
        parts_.workers.forget_target();
        refuse(error.what());
        return;
    }
    parts_.workers.adopt_target();
    // The password may have become another one meanwhile.
    take_credentials();
}

void Reload::on_target_refused(const std::string& reason) {
    refuse("the new upstream does not serve: " + reason);
}

bool Reload::take_credentials() {
    // None turns to another node of a cluster meanwhile.
    const Workers::Pause pause(parts_.workers);
    try {
        Workers::Targets targets = parts_.upstreams.make_targets(parts_.config, failover_.primary(),
                                                                 parts_.workers.seeds());
        credentials_problem_.clear();
        const std::string what = other_secrets(parts_.workers.target(), *targets.front());
        if (what.empty()) return true;
        parts_.workers.set_access(std::move(targets));
        parts_.log.info("credentials_read_again", {{"what", what}});
        return true;
    } catch (const std::exception& error) {
        if (credentials_problem_ == error.what()) return false;
        credentials_problem_ = error.what();
        parts_.log.warning("credentials_unreadable", {{"reason", credentials_problem_}});
        return false;
    }
}

void warn_of_open_secrets(const ConfigSources& sources, const Config& config, Log& log) {
    for (const std::string& warning : secret_warnings(sources, config))
        log.warning("password_exposed", {{"what", warning}});
}

void apply_log_options(const LogOptions& options, const Environment& environment, int fd,
                       Log& log) {
    LogLevel level = LogLevel::Info;
    NEARKEY_CHECK(parse_log_level(options.level, level));
    log.set_level(level);
    const std::string* const journal = environment.find("JOURNAL_STREAM");
    log.set_format(options.format == "text" ? LogFormat::Text : LogFormat::Json,
                   log_target(fd, journal != nullptr ? *journal : ""));
}

}  // namespace nearkey
