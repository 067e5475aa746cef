#include "nearkey/dispatch/parts.h"

#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/slot.h"

#include <algorithm>
#include <utility>

namespace nearkey {

Parts::Parts(const CommandSpec& spec, const CommandView& command)
    : command_(command),
      first_key_(spec.first_key),
      step_(static_cast<size_t>(spec.key_specs[0].step)) {
    if (is_of_one_slot()) return;
    is_incomplete_ = (command.size() - first_key_) % step_ != 0;
    std::vector<std::pair<uint16_t, uint32_t>> slots(key_count());
    for (uint32_t i = 0; i < slots.size(); ++i)
        slots[i] = {slot_of(key(i)), i};
    std::sort(slots.begin(), slots.end());
    keys_.reserve(slots.size());
    part_of_.resize(slots.size());
    for (const auto& [slot, number] : slots) {
        if (parts_.empty() || parts_.back().slot != slot) {
            parts_.push_back({slot, static_cast<uint32_t>(keys_.size())});
        }
        keys_.push_back(number);
        part_of_[number] = static_cast<uint16_t>(parts_.size() - 1);
    }
}

// Without memory of its own: so are most.
bool Parts::is_of_one_slot() const {
    if (command_.size() <= first_key_ + step_) return true;
    const uint16_t first = slot_of(key(0));
    for (size_t at = first_key_ + step_; at < command_.size(); at += step_)
        if (slot_of(command_[at]) != first) return false;
    return true;
}

void Parts::encode(size_t part, std::string& out) const {
    const size_t begin = parts_[part].first;
    const size_t end = end_of(part);
    append_array_header(out, first_key_ + (end - begin) * step_);
    for (size_t i = 0; i < first_key_; ++i)
        append_bulk(out, command_[i]);
    for (size_t i = begin; i < end; ++i) {
        for (size_t word = 0; word < step_; ++word)
            append_bulk(out, command_[first_key_ + keys_[i] * step_ + word]);
    }
}

std::vector<size_t> Parts::places(size_t part) const {
    std::vector<size_t> places;
    for (size_t i = parts_[part].first; i < end_of(part); ++i)
        places.push_back(first_key_ + keys_[i] * step_);
    return places;
}

}  // namespace nearkey
