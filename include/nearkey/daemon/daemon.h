// Builds the parts from the configuration, hands each what it needs, and runs them.
// Owned by main. The clients' sockets are bound when Valkey serves us for the first time, not
// before: a client that can connect is answered.
//
//   Starting ──first PONG──▶ Serving ──SIGTERM──▶ Draining ──nothing owed, or time over──▶ end
//
// An upgrade (succession.h) adds a stage to either side:
//   Starting ──first PONG──▶ Waiting ──the old one left──▶ Serving
//   Serving ──the new one is ready──▶ Retiring ──no client left, or time over──▶ Draining
#pragma once

#include "nearkey/daemon/accounts.h"
#include "nearkey/daemon/admin_view.h"
#include "nearkey/daemon/config.h"
#include "nearkey/daemon/failover.h"
#include "nearkey/daemon/http_servers.h"
#include "nearkey/daemon/listen_plan.h"
#include "nearkey/daemon/memory_watch.h"
#include "nearkey/daemon/password_command.h"
#include "nearkey/daemon/reload.h"
#include "nearkey/daemon/spare_memory.h"
#include "nearkey/daemon/succession.h"
#include "nearkey/daemon/upstream_maker.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/server/history.h"
#include "nearkey/server/shared_segment.h"
#include "nearkey/upstream/managed_server.h"

#include <memory>
#include <string>
#include <vector>

namespace nearkey {

class Daemon final : private WorkersEvents,
                     private ReloadEvents,
                     private SuccessionEvents,
                     private PasswordCommandEvents {
public:
    // Throws std::runtime_error with one line for the operator if a part can't be made.
    // `config` came from load_config(sources).
    Daemon(const Config& config, const ConfigSources& sources);
    ~Daemon();

    // Serves until it is told to stop; returns the exit code.
    int run();

private:
    // Locked: the password is not known yet.
    enum class Stage { Locked, Starting, Waiting, Serving, Retiring, Draining };

    // WorkersEvents
    void on_health_changed(const UpstreamHealth& health) override;
    void on_credentials_refused() override;
    void on_demoted() override { failover_->on_demoted(); }
    void on_confirmation_wanted() override { failover_->on_confirmation_wanted(); }
    void on_confirmation_missing() override { failover_->on_confirmation_missing(); }
    // ReloadEvents
    std::string why_no_reload() const override;
    void on_reload_begun() override;
    bool ask_password() override;
    void check_next(const Config& next) const override;
    void open_doors_of(const Config& next) override;
    void apply_options() override;
    void on_reload_ended(const AdminChange& change, bool is_renewal) override;
    // PasswordCommandEvents
    void on_password() override;
    void on_run_ended(const std::string& problem) override;
    // SuccessionEvents
    std::string why_no_upgrade() const override;
    const ListenSocket& admin_socket() const override { return http_->admin_socket(); }
    const ListenSocket* metrics_socket() const override { return http_->metrics_socket(); }
    void retire() override;
    void on_retirement_over() override { drain_clients(); }
    void on_predecessor_left() override;
    void on_predecessor_gone() override;

    void watch_signals();
    void make_upstreams();
    void start_managed_server();
    void start_upstream();
    void open();
    std::string health_text() const;
    void start_http();
    void reap_orphans();
    void start_serving();
    void fail_to_listen(const std::exception& error);
    void drain_clients();
    void on_second();
    void look_at_sockets();
    void give_back_spare_memory();
    ListenPlan plan(const Config& config) const;
    std::vector<ClientServer::Door> doors(const Config& config) const;
    void make_stores();
    void end_segment();
    void print_how_to_try() const;
    void on_stop_signal();

    const ConfigSources sources_;
    Config config_;  // the parts refer to it; a reload changes it in place
    InheritedSockets inherited_;
    const ForeignAddresses foreign_;  // the addresses in it at first
    Metrics metrics_;                 // of the main thread, and of all that is shared
    MetricsGroup all_metrics_;
    Log log_;
    const KeyHash key_hash_;
    SlowLog slow_log_;
    History history_{Loop::boot_ms()};
    KnownScripts scripts_;
    Loop loop_;
    std::unique_ptr<ManagedServer> managed_;
    // What the event loops share of replies and writes.
    struct Stores {
        std::unique_ptr<NearCache> cache;        // null: switched off
        std::unique_ptr<SharedSegment> segment;  // null: the same
        std::unique_ptr<OwnWrites> own_writes;   // null: no listener reads from replicas
    };
    Stores stores_;
    PasswordCommand password_command_;
    std::unique_ptr<UpstreamMaker> upstreams_;
    std::unique_ptr<Workers> workers_;
    std::unique_ptr<Failover> failover_;
    std::unique_ptr<Reload> reload_;
    std::unique_ptr<Succession> succession_;
    std::unique_ptr<AdminView> admin_view_;
    std::unique_ptr<HttpServers> http_;
    std::vector<std::unique_ptr<SignalWatch>> signals_;
    Timer drain_timer_;
    Timer watchdog_timer_;
    Timer second_timer_;  // for work that can wait: each wakes the process up
    std::unique_ptr<MemoryWatch> memory_;
    SpareMemory spare_memory_;
    Stage stage_ = Stage::Starting;
    int exit_code_ = 0;
};

}  // namespace nearkey
