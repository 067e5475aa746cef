// The keys that are read most, among reads answered from the near cache and among all others.
// One for each event loop. Two sketches of bounded memory by Space-Saving (Metwally, Agrawal, El
// Abbadi: "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005) over a
// sample of the reads. The one rule: the hot path pays one counter a read, whatever the load is.
//
//   read ─is_due()─▶ note() ─▶ a place in the sketch; every window all counts are halved, so that
//   yesterday's key does not stay, and the sample is made thinner or denser
#pragma once

#include "nearkey/session/key_hash.h"
#include "nearkey/session/traffic_options.h"

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nearkey {

class HotKeys {
public:
    enum class Outcome : uint8_t { Hit, Miss };
    static constexpr uint64_t kWindowMs = 10'000;

    struct Entry {
        uint64_t hash = 0;      // KeyHash::hash()
        std::string name;       // empty unless names are shown; its beginning, if it is long
        double count = 0;       // reads, estimated; those of older windows count less
        double error = 0;       // of these, reads that may be another key's
        double per_second = 0;  // the same as a rate
    };

    // All outlive it.
    HotKeys(const HotKeyOptions& options, const KeyHash& key_hash);

    // Called with each read: true if this one is to be noted.
    bool is_due(Outcome outcome) { return --sketch(outcome).reads_left == 0; }
    void note(std::string_view key, Outcome outcome, uint64_t now_ms);
    // So many hits, of which this key's stands for all.
    void note_hits(std::string_view key, uint32_t hits, uint64_t now_ms);

    // At most `count`, the hottest first.
    std::vector<Entry> top(size_t count, Outcome outcome, uint64_t now_ms) const;
    // Merges several with the same KeyHash, as if one had seen all reads.
    static std::vector<Entry> top(const std::vector<const HotKeys*>& all, size_t count,
                                  Outcome outcome, uint64_t now_ms);
    bool shows_names() const { return options_.show_names; }

private:
    // A window with more samples than this makes sampling half as dense, one with fewer than ...
    static constexpr uint64_t kSamplesMax = 8192;
    // ... this twice as dense.
    static constexpr uint64_t kSamplesMin = 2048;
    static constexpr uint64_t kGapMax = 1024;
    static constexpr size_t kNameMax = 128;

    struct Place {
        uint64_t hash;
        double count;
        double error;
        std::string name;
    };
    struct Sketch {
        uint64_t reads_left = 1;
        uint64_t gap = 1;  // from one sample to the next, on average
        uint64_t samples = 0;
        uint64_t window_since_ms = 0;
        double weighed_ms = 0;  // time of earlier windows, halved like their counts
        std::vector<Place> places;
    };

    Sketch& sketch(Outcome outcome) { return sketches_[static_cast<size_t>(outcome)]; }
    void add_to(std::unordered_map<uint64_t, Entry>& entries, Outcome outcome,
                uint64_t now_ms) const;
    void look_at_window(Sketch& sketch, uint64_t now_ms);
    void begin_window(Sketch& sketch, uint64_t now_ms);
    void count(Sketch& sketch, std::string_view key, double weight);
    void schedule(Sketch& sketch);

    const HotKeyOptions options_;
    const KeyHash& key_hash_;
    std::minstd_rand random_{std::random_device{}()};
    Sketch sketches_[2];
};

}  // namespace nearkey
