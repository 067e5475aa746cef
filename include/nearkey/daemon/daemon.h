// Builds the parts from the configuration, hands each what it needs, and runs them.
// Owned by main. The clients' sockets are bound when Valkey serves us for the first time, not
// before: who can connect is answered.
//
//   Starting ──first PONG──▶ Serving ──SIGTERM──▶ Draining ──nothing owed, or time over──▶ end
#pragma once

#include "nearkey/daemon/accounts.h"
#include "nearkey/daemon/config.h"
#include "nearkey/daemon/listen_plan.h"
#include "nearkey/server/admin_server.h"
#include "nearkey/server/client_server.h"
#include "nearkey/upstream/managed_server.h"

#include <memory>
#include <string>
#include <vector>

namespace nearkey {

class Daemon final : public PoolEvents, public AdminSource {
public:
    // Throws std::runtime_error with one line for the operator if a part can't be made.
    Daemon(const Config& config, const Environment& environment);
    ~Daemon();

    // Serves until it is told to stop; returns the exit code.
    int run();

private:
    enum class Stage { Starting, Serving, Draining };

    // PoolEvents
    void on_health_changed(const UpstreamHealth& health) override;
    // AdminSource
    AdminState admin_state() const override;
    double uptime_seconds() const override;
    const Metrics& metrics() const override { return metrics_; }
    uint64_t now_ms() const override { return loop_.now_ms(); }
    const HotKeys& hot_keys() const override { return hot_keys_; }
    const SlowLog& slow_log() const override { return slow_log_; }

    void listen_for_admin();
    void open();
    void print_how_to_try() const;
    void on_stop_signal();

    const Config config_;
    InheritedSockets inherited_;
    const ListenPlan listen_;
    const std::vector<ListenerAccounts> accounts_;  // of the listeners, in their order
    Metrics metrics_;
    Log log_;
    const KeyHash key_hash_;
    HotKeys hot_keys_;
    SlowLog slow_log_;
    Loop loop_;
    std::vector<char> scratch_;  // what sockets are read into; its bytes live for one callback
    std::unique_ptr<ManagedServer> managed_;
    UpstreamUrl url_;
    std::unique_ptr<TlsContext> tls_;
    std::unique_ptr<NearCache> cache_;  // null: switched off
    std::unique_ptr<ConnectionPool> pool_;
    std::unique_ptr<ClientServer> clients_;
    std::unique_ptr<AdminServer> admin_;
    std::vector<std::unique_ptr<SignalWatch>> signals_;
    Timer drain_timer_;
    Timer watchdog_timer_;
    Timer repeats_timer_;
    const uint64_t started_ms_ = loop_.now_ms();
    Stage stage_ = Stage::Starting;
    uint64_t draining_since_ms_ = 0;
    int exit_code_ = 0;
};

}  // namespace nearkey
