#include "instance.h"

#include "failovers.h"

#include <algorithm>
#include <string>
#include <utility>

namespace nearkey::simulation {

namespace {
const char* other(const std::string& server) {
    return server == kServers[0] ? kServers[1] : kServers[0];
}
}  // namespace

void World::Worker::on_target_proven() {
    mailbox_.post([this, trial = trial_] { instance_.on_target_proven(trial); });
}

void World::Worker::on_target_refused(const std::string&) {
    mailbox_.post([this, trial = trial_] { instance_.on_target_refused(trial); });
}

void World::Worker::on_demoted() {
    mailbox_.post([this] { instance_.on_demoted(); });
}

void World::Worker::on_confirmation_wanted() {
    mailbox_.post([this] { instance_.on_confirmation_wanted(); });
}

void World::Instance::turn() {
    if (is_turning_) return;
    former_ = std::exchange(server(), other(server()));
    if (world_.random_.one_in(4)) {
        turn_all();
        return;
    }
    is_turning_ = true;
    ++trial_;
    unproven_ = workers_.size();
    for (const auto& worker : workers_)
        worker->try_target(url_, trial_);
}

// As Workers does.
void World::Instance::on_target_proven(uint64_t trial) {
    if (trial == trial_ && is_turning_ && --unproven_ == 0) turn_all();
}

void World::Instance::on_target_refused(uint64_t trial) {
    if (trial != trial_ || !is_turning_) return;
    forget_target();
    if (std::exchange(is_seeking_, false)) ask_for_primary(world_.random_.between(10'000, 150'000));
}

void World::Instance::forget_target() {
    is_turning_ = false;
    for (const auto& worker : workers_)
        worker->forget_target();
    server() = former_;
}

// The main thread does it for all event loops while they wait.
void World::Instance::turn_all() {
    ModelValkey& next = *world_.valkeys_[server() == kServers[0] ? 0 : 1];
    if (!std::exchange(is_seeking_, false)) ++upstream.turns;
    upstream.valkey = &next;
    upstream.reign = next.reign;
    for (const auto& worker : workers_) {
        if (is_turning_) {
            worker->adopt_target();
        } else {
            worker->turn_to(url_);
        }
    }
    is_turning_ = false;
    world_.on_turned(channel_);
}

// --- failovers ---

// What Valkey says of itself has a Sentinel asked.
void World::Instance::on_demoted() {
    ask_for_primary(world_.random_.below(100'000));
}

void World::Instance::on_confirmation_wanted() {
    ask_for_primary(world_.random_.below(100'000));
}

// Its heartbeats must have failed, and their ticks have been looked at.
bool World::Instance::is_silent() const {
    constexpr uint64_t kTicksUs = 100'000;
    const uint64_t limit_us = options_.suspect_after_ms * 1000 + bound_us() + kTicksUs;
    return std::all_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
        return worker->heard_us() + limit_us < world_.events_.now_us || !worker->is_connected();
    });
}

void World::Instance::ask_for_primary(uint64_t delay_us) {
    if (std::exchange(is_asking_, true)) return;
    world_.events_.after(delay_us, [this] {
        is_asking_ = false;
        seek_primary();
    });
}

void World::Instance::seek_primary() {
    const std::string& primary = world_.failovers_->primary();
    if (is_turning_ && server() == primary) return;
    if (is_turning_) forget_target();
    if (server() == primary) {
        for (const auto& worker : workers_)
            worker->confirm_primary();
        return;
    }
    former_ = std::exchange(server(), primary);
    is_turning_ = is_seeking_ = true;
    ++trial_;
    unproven_ = workers_.size();
    for (const auto& worker : workers_)
        worker->seek_primary(url_, trial_);
}

}  // namespace nearkey::simulation
