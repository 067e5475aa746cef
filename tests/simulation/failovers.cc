#include "failovers.h"

#include "instance.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

using Promotion = ModelValkey::Promotion;

World::Failovers::Failovers(World& world)
    : world_(world),
      random_(world.random_),
      events_(world.events_),
      primary_(world.valkeys_[0].get()),
      other_(world.valkeys_[1].get()) {
    primary_->lead(*other_);
}

void World::Failovers::start() {
    other_->lag_behind(random_.between(50, 5'000), 0);
    events_.after(random_.between(200'000, 600'000), [this] { begin(); });
}

ModelValkey* World::Failovers::unaware() const {
    return other_->is_replica() ? nullptr : other_;
}

void World::Failovers::when_awake(const ModelValkey& valkey, std::function<void()> what) {
    if (!world_.network_.is_still(valkey.name())) {
        what();
        return;
    }
    events_.after(random_.between(1, 5'000), [this, &valkey, what = std::move(what)]() mutable {
        when_awake(valkey, std::move(what));
    });
}

void World::Failovers::settle_then(uint64_t when_us, std::function<void()> what) {
    constexpr uint64_t kMomentUs = 40'000;
    if (!world_.is_quiet_) {
        events_.at(when_us, std::move(what));
        return;
    }
    events_.at(when_us, [this] { world_.is_settling_ = true; });
    events_.at(when_us + kMomentUs, [this, what = std::move(what)] {
        world_.is_settling_ = false;
        what();
    });
}

void World::Failovers::begin() {
    is_late_ = random_.one_in(2);
    // So that something is missing when it is promoted.
    if (random_.one_in(2)) {
        const uint64_t stall_us = random_.between(1'000, 200'000);
        other_->lag_behind(random_.between(50, 100'000), events_.now_us + stall_us);
    }
    const uint64_t choice = random_.below(10);
    if (choice < 2) {
        settle_then(events_.now_us,
                    [this] { when_awake(*primary_, [this] { depose_by_plan(); }); });
    } else if (choice < 5) {
        depose(events_.now_us + random_.between(0, 200'000),
               events_.now_us + random_.between(200'000, 1'400'000));
    } else if (choice < 9) {
        depose_frozen();
    } else {
        depose_killed();
    }
}

void World::Failovers::depose_by_plan() {
    promote(Promotion::Planned);
    demote(Promotion::Planned);
}

void World::Failovers::depose(uint64_t promoted_us, uint64_t aware_us) {
    events_.at(promoted_us, [this, aware_us] {
        when_awake(*other_, [this, aware_us] {
            promote(Promotion::Unplanned);
            settle_then(aware_us,
                        [this] { when_awake(*other_, [this] { demote(Promotion::Unplanned); }); });
        });
    });
}

void World::Failovers::depose_frozen() {
    const uint64_t length_us =
        world_.is_quiet_ ? random_.between(300'000, 900'000) : random_.between(50'000, 1'500'000);
    const uint64_t until_us = events_.now_us + length_us;
    world_.note(fmt::format("{} is frozen until {} us", primary(), until_us));
    world_.network_.hosts.at(primary()).frozen_until_us = until_us;
    depose(events_.now_us + random_.between(20'000, length_us / (world_.is_quiet_ ? 2 : 1)),
           until_us + random_.between(0, 300'000));
}

void World::Failovers::depose_killed() {
    world_.note(primary() + " is killed");
    Network::Host& host = world_.network_.hosts.at(primary());
    host.is_down = true;
    primary_->restart();
    const uint64_t promoted_us = events_.now_us + random_.between(20'000, 500'000);
    const uint64_t up_us = promoted_us + random_.between(1'000, 500'000);
    events_.at(up_us, [&host] { host.is_down = false; });
    depose(promoted_us, up_us + random_.between(0, 300'000));
}

void World::Failovers::promote(Promotion promotion) {
    other_->promote(promotion);
    std::swap(primary_, other_);
    world_.note(primary() + " is promoted");
    if (random_.one_in(2)) world_.network_.leave_all_of(primary());
    tell_all();
}

// Sentinel has it end all connections; who says REPLICAOF does not.
void World::Failovers::demote(Promotion promotion) {
    world_.note(other_->name() + " is demoted");
    other_->demote();
    if (!is_late_) world_.network_.leave_all_of(other_->name());
    const uint64_t alone_us = random_.below(is_late_ ? 1'000'000 : 100'000);
    events_.after(alone_us, [this, promotion] {
        when_awake(*other_, [this, promotion] {
            world_.note(other_->name() + " follows");
            other_->lag_behind(random_.between(50, 20'000), 0);
            other_->follow(promotion);
            events_.after(random_.between(100'000, 600'000), [this] { begin(); });
        });
    });
}

void World::Failovers::tell_all() {
    for (const auto& instance : world_.instances_) {
        const uint64_t late_us =
            is_late_ ? random_.between(400'000, 1'500'000) : random_.below(300'000);
        events_.after(late_us, [&instance = *instance] { instance.ask_for_primary(0); });
    }
}

}  // namespace nearkey::simulation
