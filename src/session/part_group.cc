#include "nearkey/session/part_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

PartGroup::PartGroup(uint32_t first, PartPlan plan)
    : first_(first),
      plan_(std::move(plan)),
      parts_(plan_.node_of.size()),
      missing_(parts_.size()),
      bytes_(sizeof(PartGroup) + parts_.size() * (sizeof(Part) + sizeof(uint16_t)) +
             plan_.part_of.size() * sizeof(uint16_t)) {
}

void PartGroup::keep(uint32_t ticket, std::string_view bytes) {
    if (is_too_large_) return;
    Part& kept = part(ticket);
    if (bytes_ + bytes.size() > plan_.bytes_max) {
        is_too_large_ = true;
        for (Part& each : parts_)
            if (each.state <= State::Whole) replace(each, {});
        return;
    }
    kept.bytes += bytes;
    bytes_ += bytes.size();
}

void PartGroup::replace(Part& part, std::string_view bytes) {
    bytes_ += bytes.size();
    bytes_ -= part.bytes.size();
    part.bytes = std::string(bytes);
}

void PartGroup::fail(uint32_t ticket, std::string_view error) {
    Part& failed = part(ticket);
    replace(failed, error);
    end(failed, error.starts_with("UPSTREAMLOST")      ? State::Lost
                : error.starts_with("UPSTREAMTIMEOUT") ? State::Late
                                                       : State::NotSent);
}

std::string_view PartGroup::reply(uint32_t ticket) const {
    const Part& whole = parts_[ticket - first_];
    const bool is_kept = whole.state == State::Whole && !whole.bytes.starts_with('-');
    return is_kept ? std::string_view(whole.bytes) : std::string_view{};
}

// Empty: no part has failed.
std::string PartGroup::failure() const {
    const auto count = [this](State state) {
        return std::count_if(parts_.begin(), parts_.end(),
                             [state](const Part& part) { return part.state == state; });
    };
    const auto answered = count(State::Whole);
    const auto total = static_cast<ptrdiff_t>(parts_.size());
    if (answered == total) return {};
    // What may have run says more than what did not.
    const State worst = count(State::Lost) > 0   ? State::Lost
                        : count(State::Late) > 0 ? State::Late
                                                 : State::NotSent;
    const auto found = std::find_if(parts_.begin(), parts_.end(),
                                    [worst](const Part& part) { return part.state == worst; });
    if (worst == State::NotSent && answered == 0) return found->bytes;
    const std::string& node =
        plan_.nodes[plan_.node_of[static_cast<size_t>(found - parts_.begin())]];
    return fmt::format("{} {} of {} parts were answered, node {} {}",
                       worst == State::Late ? "UPSTREAMTIMEOUT" : "UPSTREAMLOST", answered, total,
                       node,
                       worst == State::Lost   ? "was lost; may have run in part"
                       : worst == State::Late ? "did not answer in time; may have run in part"
                                              : "was not reached; has run in part");
}

PartGroup::Outcome PartGroup::outcome() const {
    std::vector<std::string_view> replies;
    replies.reserve(parts_.size());
    const Part* error = nullptr;
    for (const Part& part : parts_) {
        if (part.state != State::Whole) continue;
        replies.push_back(part.bytes);
        if (error == nullptr && part.bytes.starts_with('-')) error = &part;
    }
    const auto is_success = [](std::string_view reply) { return !reply.starts_with('-'); };
    const bool is_enough =
        plan_.how == Gather::One && std::any_of(replies.begin(), replies.end(), is_success);
    if (std::string words = failure(); !words.empty() && !is_enough) return {{}, std::move(words)};
    if (is_too_large_) {
        return {{},
                "ERR the replies of all parts are larger than limits.output_per_client_max allows; "
                "has run"};
    }
    if (error != nullptr && plan_.how != Gather::One) return {{{}, {error->bytes}}, {}};
    auto reply = gather({plan_.how, replies, plan_.part_of, plan_.draw});
    if (!reply) return {{}, "ERR the nodes' replies to the command's parts do not fit together"};
    return {std::move(*reply), {}};
}

}  // namespace nearkey
