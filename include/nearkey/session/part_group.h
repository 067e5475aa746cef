// The replies to the parts of one command of a cluster, kept until all are there; then one reply
// takes their place. Owned by ReplyQueue.
// A part is an ordinary request with a ticket of its own; those of a group follow each other.
// The one rule: a command that ran in part never looks as if it had not run, nor as if it had run
// as a whole.
#pragma once

#include "nearkey/resp/gather.h"
#include "nearkey/upstream/latency.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

// The parts of a command, before they are sent.
struct PartPlan {
    Gather how = Gather::Same;
    std::vector<uint16_t> part_of{};   // as in PartReplies
    std::vector<uint16_t> node_of{};   // of each part, the node that is asked
    std::vector<std::string> nodes{};  // their addresses
    // A part that was not run may be sent again later: its slot says where. Otherwise it is of one
    // node, and nobody else can answer for that.
    bool may_be_delayed = false;
    size_t bytes_max = SIZE_MAX;  // of all replies together
    uint64_t draw = 0;            // as in PartReplies
    RequestTiming timing{};
};

class PartGroup {
public:
    // One reply in place of all.
    struct Outcome {
        GatheredReply reply;
        std::string failure;  // not empty: an error's text, instead of it
    };

    PartGroup(uint32_t first, PartPlan plan);

    uint32_t first() const { return first_; }
    uint32_t count() const { return static_cast<uint32_t>(parts_.size()); }
    bool has(uint32_t ticket) const { return ticket - first_ < count(); }
    bool may_be_delayed() const { return plan_.may_be_delayed; }
    const RequestTiming& timing() const { return plan_.timing; }
    // Memory.
    size_t bytes() const { return bytes_; }

    // What comes of a part. REQUIRES for these: has(ticket), and it has not ended.
    void keep(uint32_t ticket, std::string_view bytes);
    void keep_end(uint32_t ticket) { end(part(ticket), State::Whole); }
    void drop_kept(uint32_t ticket) { replace(part(ticket), {}); }
    void fail(uint32_t ticket, std::string_view error);

    bool is_whole() const { return missing_ == 0; }
    // REQUIRES for these: is_whole().
    bool has_failed(uint32_t ticket) const { return parts_[ticket - first_].state != State::Whole; }
    // The part's own reply; empty: it is an error, or was not kept.
    std::string_view reply(uint32_t ticket) const;
    // Its views are into the group.
    Outcome outcome() const;

private:
    enum class State : uint8_t {
        Open,
        Whole,
        NotSent,
        Late,  // it may have run
        Lost,  // the same
    };
    struct Part {
        std::string bytes;  // its reply; of one that has failed, the error's text
        State state = State::Open;
    };

    Part& part(uint32_t ticket) { return parts_[ticket - first_]; }
    void end(Part& part, State state) {
        part.state = state;
        --missing_;
    }
    void replace(Part& part, std::string_view bytes);
    std::string failure() const;

    const uint32_t first_;
    const PartPlan plan_;
    std::vector<Part> parts_;
    size_t missing_;
    size_t bytes_;
    bool is_too_large_ = false;  // no more is kept
};

}  // namespace nearkey
