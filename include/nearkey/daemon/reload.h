// Reading the configuration again while serving. Everything that can fail is done first: the file
// and the secrets are read, what needs a restart is refused, a new upstream has to answer, new
// listeners are opened. The rest only changes values in place, and can't fail.
// Owned by Daemon. The one rule: a reload is done as a whole, or not at all.
//
//   begin() ──▶ Done | Refused                               both are final
//           ──▶ UnderWay                                     the password's command runs, then
//                        ──PING answered──▶ Done             another upstream: until then the
//                        ──no answer──────▶ Refused          former configuration is in force
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/daemon/failover.h"
#include "nearkey/daemon/upstream_maker.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/server/admin_pages.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nearkey {

class ReloadEvents {
public:
    // Empty: nothing stands in its way.
    virtual std::string why_no_reload() const = 0;
    virtual void on_reload_begun() = 0;
    // Has the password's command run; on_password_run_ended() follows. False: there is none.
    virtual bool ask_password() = 0;
    // Both throw std::runtime_error if `next` can't be in force without a restart, or its listeners
    // can't be opened; then nothing has changed.
    virtual void check_next(const Config& next) const = 0;
    virtual void open_doors_of(const Config& next) = 0;
    // The new configuration is in force.
    virtual void apply_options() = 0;
    // Done or refused.
    virtual void on_reload_ended(const AdminChange& change, bool is_renewal) = 0;

protected:
    ~ReloadEvents() = default;
};

// A difference between two configurations; secrets are redacted.
struct ConfigChange {
    std::string key;   // "upstream.url", or "listener ADDRESS near_cache"
    std::string text;  // "key: old -> new"
    bool needs_restart = false;
};

// Changes or reasons in one line, as the log and the history have them.
std::string in_one_line(const std::vector<std::string>& parts);

class Reload final : private TargetEvents, private SentinelEvents {
public:
    Reload(const DaemonParts& parts, Failover& failover, ReloadEvents& events);

    // Begins anew if an upstream is being proven.
    const AdminChange& begin();
    const AdminChange& last() const { return change_; }
    // `problem`: why it told none; empty: it did.
    void on_password_run_ended(const std::string& problem);
    bool waits_for_password() const { return waits_for_password_; }
    // No reload is under way any more.
    void end() {
        next_.reset();
        watch_timer_.stop();
        waits_for_password_ = false;
    }
    // Has the workers use the password and the certificates that the files hold now, if they are
    // others: an operator who changed them in Valkey has changed the files as well, or will. False:
    // they can't be read.
    bool take_credentials();
    // To be called each second. Certificates whose files were replaced are used once a new
    // connection has proven them, as in a reload; what is refused is tried again.
    void look();

private:
    struct Next {
        Config config;
        std::vector<ConfigChange> changes;  // from the configuration in force
        // The watch over Sentinels that are not those in force. Null: the same, or none.
        std::unique_ptr<SentinelWatch> watch;
        bool has_other_upstream = false;
        bool is_renewal = false;  // the configuration is the same
        std::string seen;         // of a renewal, certificates_seen()
        Endpoint primary;
    };

    // TargetEvents
    void on_target_proven() override;
    void on_target_refused(const std::string& reason) override;
    // SentinelEvents of the Sentinels in the next configuration
    void on_sentinel_word(const SentinelWord&) override;

    // Of what is under way.
    AdminChange& change() { return next_ != nullptr && next_->is_renewal ? renewal_ : change_; }
    void renew_certificates(const std::string& seen);
    void read_next();
    void try_next(const Endpoint& primary);
    void on_watch();
    void note_other_files(const UpstreamTarget& target);
    void apply_next();
    void refuse(const std::string& reason);

    const DaemonParts parts_;
    Failover& failover_;
    ReloadEvents& events_;
    AdminChange change_;          // that somebody asked for
    AdminChange renewal_;         // of certificates
    std::unique_ptr<Next> next_;  // null: none is under way
    Timer watch_timer_;           // a Sentinel has answered it, or none has in time
    std::string credentials_problem_;
    bool waits_for_password_ = false;
    uint64_t wait_until_ms_ = 0;
    std::string certificates_seen_;            // those that are in force
    std::string changed_seen_;                 // those that are there in their place
    std::optional<std::string> refused_seen_;  // those that were refused last
    std::string refused_reason_;
    uint64_t renew_at_ms_ = 0;
};

// Warns of every file with a secret that others may read.
void warn_of_open_secrets(const ConfigSources& sources, const Config& config, Log& log);

// Applies [log] to the log, when the daemon starts and after each reload; POST /log-level holds
// until then. `fd` is where `log` writes. REQUIRES: the options came from load_config() or are {}.
void apply_log_options(const LogOptions& options, const Environment& environment, int fd, Log& log);

}  // namespace nearkey
