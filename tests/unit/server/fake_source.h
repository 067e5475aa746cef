// What the admin pages show in tests.
// A test changes the members before it asks.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/server/admin_pages.h"

namespace nearkey {

struct FakeSource final : AdminSource {
    AdminState admin_state() const override { return state; }
    double uptime_seconds() const override { return 12.25; }
    uint64_t now_ms() const override { return 5000; }
    const Metrics& metrics() const override { return counted; }
    const HotKeys& hot_keys() const override { return keys; }
    const SlowLog& slow_log() const override { return slow; }

    AdminState state{true, "ready", "", 1.5};
    Metrics counted;
    KeyHash key_hash;
    HotKeyOptions key_options;
    HotKeys keys{key_options, key_hash};
    SlowLogOptions slow_options;
    Log log{-1, LogLevel::Error, counted};
    SlowLog slow{slow_options, key_hash, log, counted};
};

}  // namespace nearkey
