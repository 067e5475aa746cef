// Builds the parts from the configuration, hands each what it needs, and runs them.
// Owned by main. The clients' sockets are bound when Valkey serves us for the first time, not
// before: who can connect is answered.
//
//   Starting ──first PONG──▶ Serving ──SIGTERM──▶ Draining ──nothing owed, or time over──▶ end
//
// An upgrade (upgrade.h) adds a stage to either side:
//   Starting ──first PONG──▶ Waiting ──the old one left──▶ Serving
//   Serving ──the new one is ready──▶ Retiring ──no client left, or time over──▶ Draining
#pragma once

#include "nearkey/daemon/accounts.h"
#include "nearkey/daemon/config.h"
#include "nearkey/daemon/config_diff.h"
#include "nearkey/daemon/listen_plan.h"
#include "nearkey/daemon/memory_watch.h"
#include "nearkey/daemon/spare_memory.h"
#include "nearkey/daemon/upgrade.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/server/admin_server.h"
#include "nearkey/upstream/managed_server.h"

#include <memory>
#include <string>
#include <vector>

namespace nearkey {

class Daemon final : public WorkersEvents,
                     public AdminSource,
                     public UpgradeEvents,
                     private TargetEvents {
public:
    // Throws std::runtime_error with one line for the operator if a part can't be made.
    // `config` is what load_config(sources) gave.
    Daemon(const Config& config, const ConfigSources& sources);
    ~Daemon();

    // Serves until it is told to stop; returns the exit code.
    int run();

private:
    enum class Stage { Starting, Waiting, Serving, Retiring, Draining };

    // WorkersEvents
    void on_health_changed(const UpstreamHealth& health) override;
    void on_credentials_refused() override;
    // TargetEvents
    void on_target_proven() override;
    void on_target_refused(const std::string& reason) override;
    // UpgradeEvents
    void on_successor_ready() override;
    void on_successor_failed(const std::string& reason) override;
    void on_predecessor_left() override;
    void on_predecessor_gone() override;
    // AdminSource (daemon_admin.cc)
    AdminState admin_state() const override;
    double uptime_seconds() const override;
    Metrics metrics() const override { return all_metrics_.total(); }
    uint64_t now_ms() const override { return loop_.now_ms(); }
    std::vector<HotKeys::Entry> hot_keys(size_t count, HotKeys::Outcome outcome) override {
        return workers_->hot_keys(count, outcome, now_ms());
    }
    bool shows_key_names() const override { return config_.hot_keys.show_names; }
    const SlowLog& slow_log() const override { return slow_log_; }
    std::string config_text() const override;
    std::shared_ptr<void> hold_still() override;
    ClientList clients(uint64_t after, size_t limit) override {
        return workers_->clients(after, limit);
    }
    ConnectionList connections(size_t limit) override { return workers_->connections(limit); }
    std::optional<uint64_t> clear_near_cache() override;
    // Reads the configuration again (daemon_reload.cc); begins anew if one is being proven.
    AdminChange reload() override;
    const AdminChange& last_reload() const override { return reload_; }
    // Starts the program that is on disk now, to take our place (daemon_upgrade.cc).
    AdminChange upgrade() override;
    const AdminChange& last_upgrade() const override { return upgrade_; }
    Log& log() override { return log_; }

    void watch_signals();
    void open();
    std::string health_text() const;
    void start_admin();
    std::unique_ptr<ListenSocket> listen_for_admin();
    void start_serving();
    void fail_to_listen(const std::exception& error);
    AdminChange refuse_upgrade(const std::string& reason);
    void suspend_near_cache();
    void resume_near_cache();
    std::string why_no_upgrade() const;
    ProgramStart successor_command() const;
    void drain_clients();
    void on_second();
    void look_at_sockets();
    // daemon_memory.cc
    MemoryFigures memory_figures() const;
    void give_back_spare_memory();
    ListenPlan plan(const Config& config) const;
    std::vector<ClientServer::Door> doors(const Config& config);
    std::unique_ptr<UpstreamTarget> make_target(const Config& config) const;
    Workers::Targets make_targets(const Config& config) const;
    void warn_of_open_secrets(const Config& config);
    // Reload: next_ is in force once apply_next() has returned.
    std::string why_no_reload() const;
    void begin_reload();
    void check_next() const;
    void note_other_files(const UpstreamTarget& target);
    void apply_next();
    void refuse_reload(const std::string& reason);
    void end_reload();
    void print_how_to_try() const;
    void on_stop_signal();

    const ConfigSources sources_;
    Config config_;  // the parts refer to it; a reload changes it in place
    InheritedSockets inherited_;
    const ForeignAddresses foreign_;  // what was in it at first
    Metrics metrics_;                 // of the main thread, and of what all threads share
    MetricsGroup all_metrics_;
    Log log_;
    const KeyHash key_hash_;
    SlowLog slow_log_;
    Loop loop_;
    std::unique_ptr<ManagedServer> managed_;
    std::unique_ptr<NearCache> cache_;  // null: switched off
    std::unique_ptr<Workers> workers_;
    std::unique_ptr<ListenSocket> admin_socket_;  // until admin_ has it
    std::unique_ptr<AdminServer> admin_;
    std::vector<std::unique_ptr<SignalWatch>> signals_;
    Timer drain_timer_;
    Timer watchdog_timer_;
    Timer second_timer_;                        // for what has time: each wakes the process up
    const std::string program_;                 // that we run, as a path
    std::unique_ptr<Predecessor> predecessor_;  // null: there was none
    std::unique_ptr<Successor> successor_;      // null: there is none
    AdminChange upgrade_;
    Timer retire_timer_;
    std::unique_ptr<MemoryWatch> memory_;
    SpareMemory spare_memory_;
    const uint64_t started_ms_ = loop_.now_ms();
    Stage stage_ = Stage::Starting;
    uint64_t draining_since_ms_ = 0;
    int exit_code_ = 0;

    AdminChange reload_;
    struct NextConfig {
        Config config;
        std::vector<ConfigChange> changes;  // from config_
    };
    std::unique_ptr<NextConfig> next_;  // null: no reload is under way
    std::string credentials_problem_;
};

}  // namespace nearkey
