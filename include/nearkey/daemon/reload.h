// Reading the configuration again while serving. Everything that can fail is done first: the file
// and the secrets are read, what needs a restart is refused, a new upstream has to answer, new
// listeners are opened. The rest only changes values in place, and can't fail.
// Owned by Daemon. The one rule: a reload is done as a whole, or not at all.
//
//   begin() ──▶ Done | Refused                               both are final
//           ──▶ UnderWay ──PING answered──▶ Done             another upstream: until then the
//                        ──no answer──────▶ Refused          former configuration is in force
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/daemon/failover.h"
#include "nearkey/daemon/upstream_maker.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/server/admin_pages.h"

#include <memory>
#include <string>
#include <vector>

namespace nearkey {

class ReloadEvents {
public:
    // Empty: nothing stands in its way.
    virtual std::string why_no_reload() const = 0;
    virtual void on_reload_begun() = 0;
    // Both throw std::runtime_error if `next` can't be in force without a restart, or its listeners
    // can't be opened; then nothing has changed.
    virtual void check_next(const Config& next) const = 0;
    virtual void open_doors_of(const Config& next) = 0;
    // The new configuration is in force.
    virtual void apply_options() = 0;
    // Done or refused.
    virtual void on_reload_ended() = 0;

protected:
    ~ReloadEvents() = default;
};

// A difference between two configurations; secrets are redacted.
struct ConfigChange {
    std::string key;   // "upstream.url", or "listener ADDRESS near_cache"
    std::string text;  // "key: old -> new"
    bool needs_restart = false;
};

class Reload final : private TargetEvents, private SentinelEvents {
public:
    Reload(const DaemonParts& parts, Failover& failover, ReloadEvents& events);

    // Begins anew if an upstream is being proven.
    const AdminChange& begin();
    const AdminChange& last() const { return change_; }
    // No reload is under way any more.
    void end() {
        next_.reset();
        watch_timer_.stop();
    }
    // Has the workers use the password and the certificates that the files hold now, if they are
    // others: an operator who changed them in Valkey has changed the files as well, or will. False:
    // they can't be read.
    bool take_credentials();
    // To be called now and then: certificates whose files were replaced are used once a new
    // connection has proven them, as in a reload.
    void look_at_certificates();

private:
    struct Next {
        Config config;
        std::vector<ConfigChange> changes;  // from the configuration in force
        // The watch over Sentinels that are not those in force. Null: the same, or none.
        std::unique_ptr<SentinelWatch> watch;
        bool has_other_upstream = false;
        bool is_renewal = false;  // the configuration is the same
        Endpoint primary;
    };

    // TargetEvents
    void on_target_proven() override;
    void on_target_refused(const std::string& reason) override;
    // SentinelEvents of the Sentinels in the next configuration
    void on_sentinel_word(const SentinelWord&) override;

    bool renew_certificates();
    void read_next();
    void try_next(const Endpoint& primary);
    void on_watch();
    void note_other_files(const UpstreamTarget& target);
    void apply_next();
    void refuse(const std::string& reason);

    const DaemonParts parts_;
    Failover& failover_;
    ReloadEvents& events_;
    AdminChange change_;
    std::unique_ptr<Next> next_;  // null: none is under way
    Timer watch_timer_;           // a Sentinel has answered it, or none has in time
    std::string credentials_problem_;
    std::string certificates_seen_;  // those that were proven, or refused
};

// Warns of every file with a secret that others may read.
void warn_of_open_secrets(const ConfigSources& sources, const Config& config, Log& log);

// Applies [log] to the log, when the daemon starts and after each reload; POST /log-level holds
// until then. `fd` is where `log` writes. REQUIRES: the options came from load_config() or are {}.
void apply_log_options(const LogOptions& options, const Environment& environment, int fd, Log& log);

}  // namespace nearkey
