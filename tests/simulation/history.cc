#include "history.h"

#include <fmt/format.h>

#include <algorithm>

namespace nearkey::simulation {

size_t History::observe(const KeyName& name, const State& state, uint64_t when_us, bool is_silent) {
    Key& key = keys_[name];
    if (key.states.back() == state) return key.states.size() - 1;
    key.states.push_back(state);
    key.since_us.push_back(when_us);
    if (is_silent) key.silent.push_back(key.states.size() - 1);
    return key.states.size() - 1;
}

void History::acknowledge(int channel, const KeyName& name, size_t step, uint64_t when_us) {
    Key& key = keys_[name];
    size_t& newest = key.through[channel];
    newest = std::max(newest, step);
    if (key.answered.empty() || key.answered.back().second < step) {
        key.answered.emplace_back(when_us, step);
    }
    if (next_ != nullptr && step <= kept_of(name)) next_->acknowledge(channel, name, step, when_us);
}

void History::note_expiry(const KeyName& name, const Expiry& expiry) {
    keys_[name].expiries.push_back(expiry);
}

History::Floor History::floor(int channel, const KeyName& name, uint64_t before_us,
                              uint64_t now_us) {
    Key& key = keys_[name];
    const auto own = key.through.find(channel);
    const auto after =
        std::partition_point(key.answered.begin(), key.answered.end(),
                             [&](const auto& each) { return each.first < before_us; });
    Floor floor{own == key.through.end() ? 0 : own->second,
                after == key.answered.begin() ? 0 : std::prev(after)->second};
    // An entry dies with its key, whatever the news.
    for (auto each = key.expiries.rbegin(); each != key.expiries.rend(); ++each) {
        const bool is_own = each->is_of_value && each->step <= floor.own + 1;
        if (each->gone_us > now_us || (each->since_us >= before_us && !is_own)) continue;
        floor.elsewhere = std::max(floor.elsewhere, each->step);
        break;
    }
    return floor;
}

void History::did(uint64_t session, const KeyName& name, size_t step) {
    size_t& last = shown_[{session, name}];
    last = std::max(last, step);
    if (next_ != nullptr) next_->did(session, name, std::min(last, kept_of(name)));
}

History::Verdict History::judge(uint64_t session, const KeyName& name, const Floor& floor,
                                const State& state) {
    return judge_by(session, name, floor, [&](const State& each) { return each == state; });
}

History::Verdict History::judge_presence(uint64_t session, const KeyName& name, const Floor& floor,
                                         bool is_there) {
    return judge_by(session, name, floor,
                    [is_there](const State& each) { return each.has_value() == is_there; });
}

History::Verdict History::judge_by(uint64_t session, const KeyName& name, const Floor& floor,
                                   const Fits& fits) {
    Key& key = keys_[name];
    const size_t must = std::max(floor.own, floor.elsewhere);
    size_t& last = shown_[{session, name}];
    size_t shown = last;
    for (auto silent = key.silent.rbegin(); silent != key.silent.rend(); ++silent) {
        if (*silent <= must) break;
        shown = std::min(shown, *silent - 1);
    }
    const size_t oldest = std::max(must, shown);
    const auto from = key.states.begin() + static_cast<ptrdiff_t>(oldest);
    const auto found = std::find_if(from, key.states.end(), fits);
    if (found != key.states.end()) {
        last = std::max(shown, static_cast<size_t>(found - key.states.begin()));
        if (next_ != nullptr) next_->did(session, name, std::min(last, kept_of(name)));
        return Verdict::Fine;
    }
    if (std::find_if(key.states.begin(), from, fits) == from) return Verdict::Unknown;
    if (oldest == floor.own) return Verdict::Own;
    return oldest == floor.elsewhere ? Verdict::Elsewhere : Verdict::Back;
}

// --- over a failover ---

size_t History::kept_of(const KeyName& name) const {
    const auto found = kept_.find(name);
    return found == kept_.end() ? 0 : found->second;
}

bool History::has_left(uint64_t session, const KeyName& name) const {
    if (next_ == nullptr) return false;
    const auto found = next_->shown_.find({session, name});
    return found != next_->shown_.end() && found->second > kept_of(name);
}

void History::go_on_in(History& next, const std::map<KeyName, size_t>& kept) {
    kept_ = kept;
    next.keys_ = keys_;
    next.shown_ = shown_;
    for (auto& [name, key] : next.keys_)
        go_back(key, kept_of(name));
    for (auto& [who, step] : next.shown_)
        step = std::min(step, kept_of(who.second));
    next_ = &next;
}

void History::go_back(Key& key, size_t step) {
    key.states.resize(step + 1);
    key.since_us.resize(step + 1);
    std::erase_if(key.silent, [step](size_t each) { return each > step; });
    std::erase_if(key.expiries, [step](const Expiry& each) { return each.step > step; });
    for (auto& [channel, newest] : key.through)
        newest = std::min(newest, step);
    for (auto& [when_us, newest] : key.answered)
        newest = std::min(newest, step);
}

std::vector<KeyName> History::names() const {
    std::vector<KeyName> names;
    for (const auto& [name, key] : keys_)
        names.push_back(name);
    return names;
}

std::string History::told(const KeyName& name) const {
    std::string out;
    const auto found = keys_.find(name);
    if (found == keys_.end()) return out;
    const Key& key = found->second;
    for (size_t i = 0; i < key.states.size(); ++i) {
        const bool is_silent = std::count(key.silent.begin(), key.silent.end(), i) > 0;
        out += fmt::format("    {:>9} us  step {}{}: {}\n", key.since_us[i], i,
                           is_silent ? " (silent)" : "", text_of(key.states[i]));
    }
    return out;
}

const char* name_of(History::Verdict verdict) {
    switch (verdict) {
        case History::Verdict::Fine:
            return "FINE";
        case History::Verdict::Unknown:
            return "UNKNOWN";
        case History::Verdict::Own:
            return "OWN";
        case History::Verdict::Elsewhere:
            return "ELSEWHERE";
        case History::Verdict::Back:
            return "BACK";
    }
    return "";
}

std::string text_of(const State& state) {
    return state ? *state : "(absent)";
}

}  // namespace nearkey::simulation
