// When this nearkey has last seen the end of a write, by slot, over all event loops and listeners:
// a replica that is not known to be newer does not answer for that slot.
// Owned by Daemon, if some listener reads from replicas; written and read by every event loop.
// The one rule: a write is noted before its client can know that it is over.
#pragma once

#include "nearkey/resp/slot.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

namespace nearkey {

class OwnWrites {
public:
    // In place of a slot: it is not known which keys were written.
    static constexpr uint16_t kAnySlot = kSlots;

    // What was written before, by another process, is as if it had been written now.
    explicit OwnWrites(uint64_t boot_ms) { note(kAnySlot, boot_ms); }

    void note(uint16_t slot, uint64_t boot_ms) {
        std::atomic<uint64_t>& last = last_[slot];
        uint64_t known = last.load();
        // Another loop may have looked at the clock later, and been faster here.
        while (known < boot_ms && !last.compare_exchange_weak(known, boot_ms)) {
        }
    }
    uint64_t last(uint16_t slot) const {
        if (is_suspended_.load()) return UINT64_MAX;
        return std::max(last_[slot].load(), last_[kAnySlot].load());
    }
    // Between these two another nearkey serves this host, too, and its writes are not known.
    void suspend() { is_suspended_ = true; }
    void resume(uint64_t boot_ms) {
        note(kAnySlot, boot_ms);
        is_suspended_ = false;
    }

private:
    std::array<std::atomic<uint64_t>, kSlots + 1> last_{};
    std::atomic<bool> is_suspended_ = false;
};

}  // namespace nearkey
