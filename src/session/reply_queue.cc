#include "nearkey/session/reply_queue.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace nearkey {

uint32_t ReplyQueue::open_group(PartPlan plan) {
    if (groups_ == nullptr) groups_ = std::make_unique<std::deque<PartGroup>>();
    const PartGroup& group = groups_->emplace_back(next_, std::move(plan));
    next_ += group.count();
    group_bytes_ += group.bytes();
    look_at_first();
    return group.first();
}

void ReplyQueue::look_at_first() {
    const bool is_group = !groups_->empty() && groups_->front().first() == first_;
    streamed_ = is_group ? first_ - 1 : first_;
}

void ReplyQueue::close_group() {
    const PartGroup& group = groups_->front();
    group_bytes_ -= group.bytes();
    first_ += group.count();
    groups_->pop_front();
    look_at_first();
    if (groups_->empty()) groups_.reset();
}

PartGroup* ReplyQueue::find_group(uint32_t ticket) const {
    if (groups_ == nullptr) return nullptr;
    // The last that begins with this ticket, or before it.
    const auto behind = std::partition_point(
        groups_->begin(), groups_->end(),
        [&](const PartGroup& group) { return group.first() - first_ <= ticket - first_; });
    if (behind == groups_->begin()) return nullptr;
    PartGroup& group = *std::prev(behind);
    return group.has(ticket) ? &group : nullptr;
}

bool ReplyQueue::fail_part(uint32_t ticket, std::string_view error) {
    PartGroup* const group = find_group(ticket);
    if (group == nullptr) return false;
    const size_t before = group->bytes();
    group->fail(ticket, error);
    count_group(*group, before);
    return true;
}

std::optional<uint32_t> ReplyQueue::last_if_delayed(uint32_t ticket) const {
    const PartGroup* const group = find_group(ticket);
    if (group == nullptr) return ticket;
    if (!group->may_be_delayed()) return std::nullopt;
    return group->first() + group->count() - 1;
}

void ReplyQueue::hold_answer(uint32_t ticket, std::string_view reply) {
    drop_kept(ticket);
    early_.add(first_, ticket, EarlyReply::What::Answer, reply);
}

void ReplyQueue::hold_cut(uint32_t ticket) {
    drop_kept(ticket);
    early_.add(first_, ticket, EarlyReply::What::Cut, {});
}

void ReplyQueue::keep(uint32_t ticket, std::string_view bytes) {
    NEARKEY_CHECK(!is_first(ticket));
    if (PartGroup* const group = find_group(ticket)) {
        const size_t before = group->bytes();
        group->keep(ticket, bytes);
        count_group(*group, before);
        return;
    }
    early_.add(first_, ticket, EarlyReply::What::Part, bytes);
}

void ReplyQueue::keep_end(uint32_t ticket) {
    if (PartGroup* const group = find_group(ticket)) {
        group->keep_end(ticket);
        return;
    }
    early_.add(first_, ticket, EarlyReply::What::Whole, {});
}

void ReplyQueue::drop_kept(uint32_t ticket) {
    if (PartGroup* const group = find_group(ticket)) {
        const size_t before = group->bytes();
        group->drop_kept(ticket);
        count_group(*group, before);
        return;
    }
    early_.drop(ticket);
}

}  // namespace nearkey
