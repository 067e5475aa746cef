// What one node of a model cluster knows of slots: who owns them, as far as it has heard, and which
// of them it is handing over or taking over key by key (getNodeByQuery in cluster.c).
// Owned by its ModelValkey; the world changes it. The one rule: nodes know different things at the
// same time, as real ones do.
#pragma once

#include "nearkey/resp/slot.h"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::simulation {

using Words = std::vector<std::string>;

class ModelSlots {
public:
    static constexpr uint8_t kNobody = UINT8_MAX;

    // `self`: the number of its node; `names`: those of all nodes, which outlive it.
    ModelSlots(uint8_t self, const std::vector<std::string>& names)
        : self_(self), names_(names), owners_(kSlots, kNobody) {}

    uint8_t self() const { return self_; }
    uint8_t owner(uint16_t slot) const { return owners_[slot]; }
    void set_owner(uint16_t slot, uint8_t owner);
    // All that the former one owned is the next one's.
    void replace(uint8_t former, uint8_t next);
    const std::vector<uint8_t>& owners() const { return owners_; }

    // The error in place of running a command with keys of this slot; empty: it is run.
    // `missing`: how many of its keys are not there.
    struct Asked {
        uint16_t slot;
        size_t keys;
        size_t missing;
        bool is_asking;
        bool is_replica;
    };
    std::string refusal(const Asked& asked) const;
    // The reply to CLUSTER SLOTS.
    std::string reply() const;

    std::map<uint16_t, uint8_t> migrating;  // to whom
    std::map<uint16_t, uint8_t> importing;  // from whom
    bool is_down = false;                   // it has lost the majority, and knows

private:
    std::string address_of(uint8_t node) const { return names_[node] + ":6379"; }

    const uint8_t self_;
    const std::vector<std::string>& names_;
    std::vector<uint8_t> owners_;
};

// The keys of a command that the model knows.
std::vector<std::string> keys_of(const Words& words);

}  // namespace nearkey::simulation
