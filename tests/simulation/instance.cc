#include "instance.h"

#include <string>
#include <utility>

namespace nearkey::simulation {

namespace {
const char* other(const std::string& server) {
    return server == kServers[0] ? kServers[1] : kServers[0];
}
}  // namespace

void World::Worker::on_target_proven() {
    mailbox_.post([this] { instance_.on_target_proven(); });
}

void World::Worker::on_target_refused(const std::string&) {
    mailbox_.post([this] { instance_.on_target_refused(); });
}

void World::Instance::turn() {
    if (is_turning_) return;
    url_.path = other(url_.path);
    if (world_.random_.one_in(4)) {
        turn_all();
        return;
    }
    is_turning_ = true;
    unproven_ = workers_.size();
    for (const auto& worker : workers_)
        worker->try_target(url_);
}

void World::Instance::on_target_proven() {
    if (is_turning_ && --unproven_ == 0) turn_all();
}

void World::Instance::on_target_refused() {
    if (!std::exchange(is_turning_, false)) return;
    for (const auto& worker : workers_)
        worker->forget_target();
    url_.path = other(url_.path);
}

// The main thread does it for all event loops while they wait.
void World::Instance::turn_all() {
    ++upstream.turns;
    upstream.valkey = world_.valkeys_[url_.path == kServers[0] ? 0 : 1].get();
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

}  // namespace nearkey::simulation
