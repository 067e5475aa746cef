// What happens to a pair of servers, and what an oracle in place of Sentinels says of it.
// Owned by the world. The one rule: only who follows the primary is promoted, so one failover is
// over before the next begins.
//
//   a primary ──┬─ planned: demoted when the replica has all, and is promoted ──────────────┐
//               ├─ left alone: it serves on, unaware ──────────────────┐                    │
//               ├─ frozen: it wakes, and answers what is in its sockets├▶ is demoted ──▶ follows
//               └─ killed: it comes back empty, unaware ───────────────┘
//   Each nearkey is told of the promotion: about then, long after, or before.
#pragma once

#include "world.h"

#include <functional>
#include <string>

namespace nearkey::simulation {

class World::Failovers final {
public:
    explicit Failovers(World& world);
    void start();
    // As a Sentinel would say it now.
    const std::string& primary() const { return primary_->name(); }
    // The one that the last failover has deposed, if it does not know. Null: there is none.
    ModelValkey* unaware() const;
    ModelValkey& newest() const { return *primary_; }

private:
    void begin();
    void depose_by_plan();
    void depose(uint64_t promoted_us, uint64_t aware_us);
    void depose_frozen();
    void depose_killed();
    void promote(ModelValkey::Promotion promotion);
    void demote(ModelValkey::Promotion promotion);
    void tell_all();
    // In a quiet world nothing changes for a moment before: all that is read is stored by then.
    void settle_then(uint64_t when_us, std::function<void()> what);
    // As soon as it is neither frozen nor down.
    void when_awake(const ModelValkey& valkey, std::function<void()> what);

    World& world_;
    Random& random_;
    EventQueue& events_;
    ModelValkey* primary_;
    ModelValkey* other_;
    bool is_late_ = false;  // this time nearkeys are told late, and the servers tell them little
};

}  // namespace nearkey::simulation
