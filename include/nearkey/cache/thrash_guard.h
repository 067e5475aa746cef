// Which families of keys are not worth storing: what is stored of them is invalidated before it is
// hit. Owned by NearCache. A family is a key up to its last ':', digits taken as one: session:,
// user:#:. It knows what was hit only when that is dropped, so a hit costs nothing here.
//
//   Watched ──in a window, kMinDrops dropped and more dropped than hits──▶ Off for off_ms
//      ▲                                                                     doubled each time in a
//      row └──────────────────────────── off_ms are over ───────────────────────────┘
//
// kFamilies are remembered; a new one takes the place of the one that has its slot.
#pragma once

#include "nearkey/base/metrics.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class ThrashGuard {
public:
    static constexpr uint32_t kMinDrops = 64;
    static constexpr uint64_t kWindowMs = 10'000;
    static constexpr uint64_t kOffMs = 10'000;
    static constexpr uint64_t kOffMaxMs = 320'000;

    explicit ThrashGuard(Metrics& metrics) : metrics_(metrics) {}

    // What was stored of the key, or was being read, was invalidated after so many hits.
    void on_dropped(std::string_view key, uint32_t hits, uint64_t now_ms);
    // Whether nothing of the key's family is to be stored.
    bool is_off(std::string_view key) const { return off_ > 0 && find_off(key) != nullptr; }
    // For so much longer; 0: it is not off.
    uint64_t off_for_ms(std::string_view key, uint64_t now_ms) const;
    // To be called now and then: those whose time is over are watched again.
    void expire(uint64_t now_ms);

    // For tests and to show: "user:#:".
    static std::string family_of(std::string_view key);

private:
    static constexpr size_t kFamilies = 1024;
    struct Family {
        uint64_t hash = 0;  // 0: none
        uint64_t window_ms = 0;
        uint64_t off_until_ms = 0;  // 0: watched
        uint64_t next_off_ms = kOffMs;
        uint32_t drops = 0;
        uint32_t hits = 0;
    };

    const Family* find_off(std::string_view key) const;

    Metrics& metrics_;
    std::array<Family, kFamilies> families_{};
    uint64_t off_ = 0;  // so many are off: as long as none is, nothing is looked up
};

}  // namespace nearkey
