// What the admin pages show in tests.
// A test changes the members before it asks.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/loop/loop.h"
#include "nearkey/server/admin_pages.h"

namespace nearkey {

struct FakeSource final : AdminSource {
    AdminState admin_state() const override { return state; }
    double uptime_seconds() const override { return 12.25; }
    uint64_t now_ms() const override { return 5000; }
    Metrics metrics() const override { return counted; }
    std::string recent_metrics(MetricsFormat format) override {
        return metrics_text(counted, format);
    }
    const History& history() const override { return hour; }
    std::vector<HotKeys::Entry> hot_keys(size_t count, HotKeys::Outcome outcome) override {
        return keys.top(count, outcome, now_ms());
    }
    bool shows_key_names() const override { return keys.shows_names(); }
    const SlowLog& slow_log() const override { return slow; }
    std::shared_ptr<void> hold_still() override { return nullptr; }
    std::string config_text() const override { return "[server]\n"; }
    ClientList clients(uint64_t, size_t) override { return {}; }
    std::vector<NodeFacts> nodes() override { return {}; }
    ConnectionList connections(size_t) override { return {}; }
    std::optional<uint64_t> clear_near_cache() override { return cleared; }
    AdminChange reload() override { return change; }
    const AdminChange& last_reload() const override { return change; }
    AdminChange upgrade() override { return change; }
    const AdminChange& last_upgrade() const override { return change; }
    Log& log() override { return log_; }

    AdminState state{true, "ready", "", 1.5};
    Metrics counted;
    History hour{Loop::boot_ms()};
    KeyHash key_hash;
    HotKeyOptions key_options;
    HotKeys keys{key_options, key_hash};
    SlowLogOptions slow_options;
    std::optional<uint64_t> cleared;
    AdminChange change;
    Log log_{-1, LogLevel::Error, counted};
    SlowLog slow{slow_options, key_hash, log_, counted};
};

}  // namespace nearkey
