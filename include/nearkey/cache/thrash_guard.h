// Finds families of keys that are not worth storing: their replies are invalidated before they are
// hit. Owned by NearCache. A family is a key up to its last ':', digits taken as one: session:,
// user:#:. Hits are counted when a reply is dropped, so a hit costs nothing here.
//
//   Watched ──in a window, kMinDrops dropped and more dropped than hits──▶ Off for off_ms,
//      ▲                                                          doubled each time in a row │
//      └────────────────────────────────── off_ms are over ──────────────────────────────────┘
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

    // A stored reply of the key, or an open fill, was invalidated after `hits` hits.
    void on_dropped(std::string_view key, uint32_t hits, uint64_t now_ms);
    // True if nothing of the key's family is to be stored.
    bool is_off(std::string_view key) const { return off_ > 0 && find_off(key) != nullptr; }
    // The time for which it is still off; 0: it is not.
    uint64_t off_for_ms(std::string_view key, uint64_t now_ms) const;
    // Called now and then: families whose time is over are watched again.
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
    uint64_t off_ = 0;  // families that are off; while none is, nothing is looked up
};

}  // namespace nearkey
