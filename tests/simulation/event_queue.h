// Simulated time, and what happens in it; one seed decides everything.
// Owned by the loop (it is the simulation's uv_loop_s). The one rule: what happens at the same time
// happens in the order in which it was planned, so that a seed is a run.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <utility>

namespace nearkey::simulation {

// The same numbers with every standard library, which distributions do not promise.
class Random {
public:
    explicit Random(uint64_t seed) : engine_(seed) {}
    // REQUIRES: bound > 0.
    uint64_t below(uint64_t bound) { return engine_() % bound; }
    uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
    bool one_in(uint64_t count) { return below(count) == 0; }

private:
    std::mt19937_64 engine_;
};

class EventQueue {
public:
    using Id = std::pair<uint64_t, uint64_t>;  // when, and a number

    Id at(uint64_t when_us, std::function<void()> what) {
        const Id id{when_us < now_us ? now_us : when_us, ++planned_};
        events_.emplace(id, std::move(what));
        return id;
    }
    Id after(uint64_t delay_us, std::function<void()> what) {
        return at(now_us + delay_us, std::move(what));
    }
    void cancel(Id id) { events_.erase(id); }
    bool empty() const { return events_.empty(); }

    // One turn of a loop that slept, and woke up so late after the first event.
    void run_turn(uint64_t late_us) {
        if (!events_.empty() && events_.begin()->first.first > now_us) {
            now_us = events_.begin()->first.first + late_us;
        }
        run_due();
    }
    // What is due now; what is planned meanwhile waits for the next turn.
    void run_due() {
        const uint64_t last = planned_;
        for (auto next = events_.begin(); next != events_.end();) {
            if (next->first.first > now_us) return;
            if (next->first.second > last) {
                ++next;
                continue;
            }
            const std::function<void()> what = std::move(next->second);
            events_.erase(next);
            what();
            next = events_.begin();
        }
    }

    uint64_t now_us = 0;

private:
    uint64_t planned_ = 0;
    std::map<Id, std::function<void()>> events_;
};

}  // namespace nearkey::simulation

struct uv_loop_s : nearkey::simulation::EventQueue {
    bool is_stopped = false;
    nearkey::simulation::Random* random = nullptr;
};
