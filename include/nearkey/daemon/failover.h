// Decides which server is the primary: the word of Sentinels, or a server that has become a
// replica, makes all event loops turn to another one, together.
// Owned by Daemon, on the main thread. The one rule: a server that is named is followed only once
// it has said itself that it is a primary (HELLO, which any user may ask, says ROLE's first word).
//
//   Sentinel ──word──▶ wanted ──seek_primary──▶ every loop dials it ──all proven──▶ adopt_target
//   a loop   ──on_demoted──▶ Sentinels are asked; or where its name leads is dialled once more
#pragma once

#include "nearkey/daemon/upstream_maker.h"
#include "nearkey/upstream/sentinel_watch.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nearkey {

class Failover final : private SentinelEvents, private TargetEvents {
public:
    explicit Failover(const DaemonParts& parts);

    // Another upstream is in force. `watch`: over its Sentinels; null: it has none. `primary`: the
    // one that is followed already; empty: none is.
    void begin(std::unique_ptr<SentinelWatch> watch, const Endpoint& primary);
    // Empty: none is known, or no Sentinel is asked.
    const Endpoint& primary() const { return primary_; }
    std::vector<SentinelFacts> sentinels() const;

    // As in WorkersEvents.
    void on_demoted();
    void on_confirmation_wanted();
    void on_confirmation_missing();

private:
    // SentinelEvents
    void on_sentinel_word(const SentinelWord& word) override;
    // TargetEvents
    void on_target_proven() override;
    void on_target_refused(const std::string& reason) override;

    void try_primary(const Endpoint& primary);
    void say_refused(const Endpoint& primary, const std::string& reason);
    void confirm(bool is_said_by_sentinel);
    void be_patient();
    void on_patience_over();

    const DaemonParts parts_;
    std::unique_ptr<SentinelWatch> watch_;
    Endpoint primary_;
    std::optional<Endpoint> tried_;  // the one that is dialled now
    std::string refused_;            // the line logged of the last one refused
    // A loop waits for a Sentinel to say that its server is still the primary.
    bool is_confirmation_wanted_ = false;
    uint64_t doubted_ms_ = 0;  // since then
    Timer patience_timer_;
};

}  // namespace nearkey
