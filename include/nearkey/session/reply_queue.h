// The order of replies: each command that is owed one has a ticket, and they are answered in the
// order of their tickets. Owned by Desk.
//
//   first ... next - 1 are owed. The first one's reply goes straight into the output; what comes of
//   any other before its turn is kept here, and taken out at its turn.
//
// Several connections may feed it, each with replies in order among themselves. A command that runs
// in parts, each a request of its own, has a ticket for each (PartGroup): none of them is the first
// one, and one reply takes the place of all at their turn.
#pragma once

#include "nearkey/session/early_replies.h"
#include "nearkey/session/part_group.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace nearkey {

class ReplyQueue {
public:
    // Opens `count` tickets; returns the first.
    uint32_t open(uint32_t count) { return std::exchange(next_, next_ + count); }
    // Opens a ticket for each part. REQUIRES: there are some.
    uint32_t open_group(PartPlan plan);
    void close_first() {
        streamed_ = ++first_;
        if (groups_ != nullptr) look_at_first();
    }
    uint32_t first() const { return first_; }
    uint32_t next() const { return next_; }
    uint32_t owed() const { return next_ - first_; }
    bool is_first(uint32_t ticket) const { return ticket == streamed_; }

    void hold_answer(uint32_t ticket, std::string_view reply);
    void hold_cut(uint32_t ticket);
    // REQUIRES: not the first one's.
    void keep(uint32_t ticket, std::string_view bytes);
    void keep_end(uint32_t ticket);
    void drop_kept(uint32_t ticket);
    bool has_early() const { return !early_.empty() || streamed_ != first_; }
    // The kept part of the first one. Valid until anything more is kept or dropped.
    std::optional<EarlyReply> early_first() const { return early_.find(first_); }
    // True if the ticket is one of a part, whose failure is kept.
    bool fail_part(uint32_t ticket, std::string_view error);
    // The command that is first, once all of its parts have ended. Null: it has none, or not yet.
    const PartGroup* whole_group() const {
        return streamed_ != first_ && groups_->front().is_whole() ? &groups_->front() : nullptr;
    }
    // REQUIRES: whole_group().
    void close_group();
    // The last ticket of the command that this one is of. Nothing: its parts may not be delayed.
    std::optional<uint32_t> last_if_delayed(uint32_t ticket) const;
    // Memory of all kept entries.
    size_t bytes() const { return early_.bytes() + group_bytes_; }

private:
    PartGroup* find_group(uint32_t ticket) const;
    void look_at_first();
    void count_group(const PartGroup& group, size_t before) {
        group_bytes_ += group.bytes() - before;
    }

    uint32_t first_ = 0;
    uint32_t next_ = 0;
    uint32_t streamed_ = 0;  // first_, or the one before it: nothing more comes of that
    size_t group_bytes_ = 0;
    EarlyReplies early_;
    std::unique_ptr<std::deque<PartGroup>> groups_;  // in order; null: there are none
};

}  // namespace nearkey
