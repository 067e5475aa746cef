// What each key was, step by step, as the model server knows it, and whether a read may show it.
// The rules are those of tests/coherence/history.py. The model knows the order of all steps, so
// keys have no owners and nothing is ambiguous.
//
// A read through a channel, begun at t, may show step n only if
//   - a step left the key in that state                                            (UNKNOWN)
//   - n is not older than the newest step answered through the same channel before t   (OWN)
//   - n is not older than the newest step answered anywhere before t - bound     (ELSEWHERE)
//   - n is not older than what the same session was shown, or did, before             (BACK)
//   - n is not older than an expiry before t whose time was set before t - bound, or with a value
//     that was answered through the same channel (ELSEWHERE)
// Of a silent step (SWAPDB, a restart) the server tells nobody: until it must be seen, a session
// may be shown what was before it.
//
// After a failover a history goes on from that of the former primary (reign.h): its steps are those
// that the replica had, whoever was shown later ones is back at the last of them, and what was
// answered of them stays answered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace nearkey::simulation {

using State = std::optional<std::string>;
using KeyName = std::pair<int, std::string>;  // database, name

class History {
public:
    // What a read that begins now must not be older than.
    struct Floor {
        size_t own = 0;
        size_t elsewhere = 0;
    };
    enum class Verdict { Fine, Unknown, Own, Elsewhere, Back };

    // The key is in this state since then; the number of the step that it is at.
    size_t observe(const KeyName& key, const State& state, uint64_t when_us, bool is_silent);
    size_t current(const KeyName& key) { return keys_[key].states.size() - 1; }
    void acknowledge(int channel, const KeyName& key, size_t step, uint64_t when_us);
    // The key was to expire then since it was changed last, and it did.
    struct Expiry {
        uint64_t since_us;
        uint64_t gone_us;
        size_t step;
        bool is_of_value;  // the time came with the value, not later
    };
    void note_expiry(const KeyName& key, const Expiry& expiry);
    // Of a read that begins at `now_us`, and may show nothing older than `before_us`.
    Floor floor(int channel, const KeyName& key, uint64_t before_us, uint64_t now_us);
    // The session was answered that it did this.
    void did(uint64_t session, const KeyName& key, size_t step);
    // To be called in the order in which the session is answered.
    Verdict judge(uint64_t session, const KeyName& key, const Floor& floor, const State& state);
    // The session was told that it is there, or not.
    Verdict judge_presence(uint64_t session, const KeyName& key, const Floor& floor, bool is_there);
    // The session was shown a step that only the history that goes on from this one has.
    bool has_left(uint64_t session, const KeyName& key) const;
    // For people: the steps of a key.
    std::string told(const KeyName& key) const;

    // What is left of a floor in the history that goes on from here.
    Floor floor_in_next(const KeyName& key, const Floor& floor) const {
        return {std::min(floor.own, kept_of(key)), std::min(floor.elsewhere, kept_of(key))};
    }
    // `next` goes on from here. Each key is as it was at its step of `kept`, or absent, as at
    // first.
    void go_on_in(History& next, const std::map<KeyName, size_t>& kept);
    const std::map<KeyName, size_t>& kept() const { return kept_; }
    std::vector<KeyName> names() const;

private:
    using Fits = std::function<bool(const State&)>;
    struct Key {
        std::vector<State> states{State()};
        std::vector<uint64_t> since_us{0};
        std::vector<size_t> silent;
        std::map<int, size_t> through;                      // channel -> newest step answered
        std::vector<std::pair<uint64_t, size_t>> answered;  // when, and the newest until then
        std::vector<Expiry> expiries;
    };
    Verdict judge_by(uint64_t session, const KeyName& key, const Floor& floor, const Fits& fits);
    size_t kept_of(const KeyName& key) const;
    static void go_back(Key& key, size_t step);

    std::map<KeyName, Key> keys_;
    std::map<std::pair<uint64_t, KeyName>, size_t> shown_;
    History* next_ = nullptr;
    std::map<KeyName, size_t> kept_;  // the last steps that it has as well
};

const char* name_of(History::Verdict verdict);
std::string text_of(const State& state);

}  // namespace nearkey::simulation
