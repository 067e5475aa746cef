#include "nearkey/session/hot_keys.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace nearkey {

namespace {

// After so many halvings nothing is left of a count.
constexpr uint64_t kWindowsMax = 64;

}  // namespace

HotKeys::HotKeys(const HotKeyOptions& options, const KeyHash& key_hash)
    : options_(options), key_hash_(key_hash) {
}

void HotKeys::note(std::string_view key, Outcome outcome, uint64_t now_ms) {
    Sketch& sketch = this->sketch(outcome);
    look_at_window(sketch, now_ms);
    count(sketch, key, static_cast<double>(sketch.gap));
    if (++sketch.samples >= kSamplesMax && sketch.gap < kGapMax) {
        sketch.gap *= 2;
        sketch.samples = 0;
    }
    schedule(sketch);
}

void HotKeys::note_hits(std::string_view key, uint32_t hits, uint64_t now_ms) {
    Sketch& hit = sketch(Outcome::Hit);
    look_at_window(hit, now_ms);
    count(hit, key, hits);
}

void HotKeys::look_at_window(Sketch& sketch, uint64_t now_ms) {
    if (sketch.window_since_ms == 0) sketch.window_since_ms = now_ms;
    if (now_ms >= sketch.window_since_ms + kWindowMs) begin_window(sketch, now_ms);
}

void HotKeys::begin_window(Sketch& sketch, uint64_t now_ms) {
    const uint64_t windows = std::min((now_ms - sketch.window_since_ms) / kWindowMs, kWindowsMax);
    const double share = std::ldexp(1.0, -static_cast<int>(windows));
    sketch.weighed_ms =
        (sketch.weighed_ms + static_cast<double>(now_ms - sketch.window_since_ms)) * share;
    sketch.window_since_ms = now_ms;
    for (Place& place : sketch.places) {
        place.count *= share;
        place.error *= share;
    }
    std::erase_if(sketch.places, [](const Place& place) { return place.count < 0.5; });
    // After so many windows nothing is left of a gap.
    const uint64_t halvings = std::min<uint64_t>(windows, std::bit_width(kGapMax));
    if (sketch.samples < kSamplesMin) sketch.gap = std::max<uint64_t>(sketch.gap >> halvings, 1);
    sketch.samples = 0;
}

// Space-Saving: a key without a place takes that of the least, and its count as a possible error.
void HotKeys::count(Sketch& sketch, std::string_view key, double weight) {
    const uint64_t hash = key_hash_.hash(key);
    std::vector<Place>& places = sketch.places;
    const auto found = std::find_if(places.begin(), places.end(),
                                    [&](const Place& place) { return place.hash == hash; });
    if (found != places.end()) {
        found->count += weight;
        return;
    }
    std::string name(options_.show_names ? key.substr(0, kNameMax) : std::string_view{});
    if (places.size() < options_.entries_max) {
        places.push_back({hash, weight, 0, std::move(name)});
        return;
    }
    Place& least =
        *std::min_element(places.begin(), places.end(),
                          [](const Place& a, const Place& b) { return a.count < b.count; });
    least = {hash, least.count + weight, least.count, std::move(name)};
}

// Chooses at random, so that the sample does not fall in with a pattern of the reads.
void HotKeys::schedule(Sketch& sketch) {
    std::uniform_int_distribution<uint64_t> distance(1, 2 * sketch.gap - 1);
    sketch.reads_left = distance(random_);
}

std::vector<HotKeys::Entry> HotKeys::top(size_t count, Outcome outcome, uint64_t now_ms) const {
    return top({this}, count, outcome, now_ms);
}

std::vector<HotKeys::Entry> HotKeys::top(const std::vector<const HotKeys*>& all, size_t count,
                                         Outcome outcome, uint64_t now_ms) {
    std::unordered_map<uint64_t, Entry> found;
    for (const HotKeys* keys : all)
        keys->add_to(found, outcome, now_ms);
    std::vector<Entry> entries;
    for (auto& [hash, entry] : found)
        entries.push_back(std::move(entry));
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.count > b.count; });
    if (entries.size() > count) entries.resize(count);
    return entries;
}

void HotKeys::add_to(std::unordered_map<uint64_t, Entry>& entries, Outcome outcome,
                     uint64_t now_ms) const {
    const Sketch& sketch = sketches_[static_cast<size_t>(outcome)];
    const double elapsed_ms =
        sketch.weighed_ms + static_cast<double>(now_ms - std::min(now_ms, sketch.window_since_ms));
    for (const Place& place : sketch.places) {
        Entry& entry = entries[place.hash];
        entry.hash = place.hash;
        entry.name = place.name;
        entry.count += place.count;
        entry.error += place.error;
        entry.per_second += place.count * 1000 / std::max(elapsed_ms, 1.0);
    }
}

}  // namespace nearkey
