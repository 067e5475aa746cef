// The daemon and its parts as the admin server's pages show them.
// Owned by Daemon, outlives the server.
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/daemon/config.h"
#include "nearkey/daemon/failover.h"
#include "nearkey/daemon/reload.h"
#include "nearkey/daemon/succession.h"
#include "nearkey/daemon/workers.h"
#include "nearkey/server/admin_pages.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nearkey {

class AdminView final : public AdminSource {
public:
    // All outlive it.
    AdminView(const DaemonParts& parts, const History& history, Failover& failover, Reload& reload,
              Succession& succession)
        : parts_(parts),
          history_(history),
          failover_(failover),
          reload_(reload),
          succession_(succession) {}

    void on_draining() { draining_since_ms_ = now_ms(); }

private:
    AdminState admin_state() const override;
    double uptime_seconds() const override {
        return static_cast<double>(now_ms() - started_ms_) / 1000;
    }
    Metrics metrics() const override { return parts_.all_metrics.total(); }
    std::string recent_metrics(MetricsFormat format) override;
    const History& history() const override { return history_; }
    uint64_t now_ms() const override { return parts_.loop.now_ms(); }
    std::vector<HotKeys::Entry> hot_keys(size_t count, HotKeys::Outcome outcome) override {
        return parts_.workers.hot_keys(count, outcome, now_ms());
    }
    bool shows_key_names() const override { return parts_.config.hot_keys.show_names; }
    const SlowLog& slow_log() const override { return parts_.slow_log; }
    std::string config_text() const override;
    std::shared_ptr<void> hold_still() override {
        return std::make_shared<Workers::Pause>(parts_.workers);
    }
    ClientList clients(uint64_t after, size_t limit) override {
        return parts_.workers.clients(after, limit);
    }
    ConnectionList connections(size_t limit) override { return parts_.workers.connections(limit); }
    std::vector<NodeFacts> nodes() override { return parts_.workers.nodes(); }
    std::optional<uint64_t> clear_near_cache() override;
    AdminChange reload() override { return reload_.begin(); }
    const AdminChange& last_reload() const override { return reload_.last(); }
    AdminChange upgrade() override { return succession_.begin(); }
    const AdminChange& last_upgrade() const override { return succession_.last(); }
    Log& log() override { return parts_.log; }

    const DaemonParts parts_;
    const History& history_;
    Failover& failover_;
    Reload& reload_;
    Succession& succession_;
    const uint64_t started_ms_ = parts_.loop.now_ms();
    std::optional<uint64_t> draining_since_ms_;
    struct RecentText {
        std::string text;  // empty: none was made yet
        uint64_t made_ms = 0;
    };
    RecentText recent_[2];  // for each MetricsFormat
};

}  // namespace nearkey
