// The parts of a command whose keys are of several slots of a cluster: one for each slot, the same
// command with the keys of that slot, in the client's order. Made for one command; its words are
// views into that.
// The one rule: never by node. A node refuses keys of several slots, also if it owns them all.
#pragma once

#include "nearkey/resp/command_table.h"

#include <cstdint>
#include <string>
#include <vector>

namespace nearkey {

class Parts {
public:
    // REQUIRES: the command's spec says Spread::EachSlot, and accepts it.
    Parts(const CommandSpec& spec, const CommandView& command);

    // Less than two: the command is of one slot, and goes as it is.
    size_t count() const { return parts_.size(); }
    // Behind some key not all is there that belongs to it: the server refuses the command.
    bool is_incomplete() const { return is_incomplete_; }
    uint16_t slot(size_t part) const { return parts_[part].slot; }
    // Appends the part, canonical RESP.
    void encode(size_t part, std::string& out) const;
    // The places of its keys among the command's words.
    std::vector<size_t> places(size_t part) const;
    // Of each key, in the client's order, the part that it is in.
    const std::vector<uint16_t>& part_of() const { return part_of_; }

private:
    struct Part {
        uint16_t slot;
        uint32_t first;  // of its keys, among keys_
    };
    bool is_of_one_slot() const;
    size_t key_count() const { return (command_.size() - first_key_) / step_; }
    std::string_view key(size_t number) const { return command_[first_key_ + number * step_]; }
    size_t end_of(size_t part) const {
        return part + 1 < parts_.size() ? parts_[part + 1].first : keys_.size();
    }

    const CommandView& command_;
    const size_t first_key_;
    const size_t step_;  // the words of a key, with what belongs to it
    bool is_incomplete_ = false;
    std::vector<Part> parts_;
    std::vector<uint32_t> keys_;  // their numbers, by their parts
    std::vector<uint16_t> part_of_;
};

}  // namespace nearkey
