// The work that is done once a turn: independent of what turns the loop, libuv or a simulation.
// style-ok(slices): the simulation links this and has the rest of loop/ anew.
#include "nearkey/loop/loop.h"

#include <algorithm>
#include <utility>

namespace nearkey {

void Deferred::defer() {
    if (position_ != kNotListed) return;
    std::vector<Deferred*>& list = loop_.listed(phase_);
    position_ = list.size();
    list.push_back(this);
}

Deferred::~Deferred() {
    if (position_ == kNotListed) return;
    // It stands either in its phase's list or in the copy that is being run.
    std::vector<Deferred*>& list = loop_.listed(phase_);
    if (position_ < list.size() && list[position_] == this) list[position_] = nullptr;
    std::replace(loop_.running_.begin(), loop_.running_.end(), this,
                 static_cast<Deferred*>(nullptr));
}

void Loop::run_phases() {
    begin_turn();
    run_phase(Phase::Resume);
    const bool sends = !listed(Phase::Upstream).empty();
    run_phase(Phase::Upstream);
    const uint32_t sent_us = sends ? now_us() : turn_us_;
    const bool is_over = sends && listed(Phase::Client).empty() && listed(Phase::Reap).empty();
    run_phase(Phase::Client);
    run_phase(Phase::Reap);
    is_turning_ = false;
    if (std::exchange(sockets_, 0) > kSocketsOfTransfer) {
        shared_turns_ = kSharedTurns;
    } else if (shared_turns_ > 0) {
        --shared_turns_;
    }
    if (turn_watch_ == nullptr) return;
    turn_watch_->on_turn({turn_us_, sent_us, is_over ? sent_us : now_us()});
}

// Runs what was listed when the phase began; work deferred meanwhile has its turn next time.
void Loop::run_phase(Phase phase) {
    if (listed(phase).empty()) return;
    running_.swap(listed(phase));
    for (size_t i = 0; i < running_.size(); ++i) {
        Deferred* deferred = running_[i];
        if (deferred == nullptr) continue;
        running_[i] = nullptr;
        deferred->position_ = Deferred::kNotListed;
        deferred->before_sleep();
    }
    running_.clear();
}

}  // namespace nearkey
