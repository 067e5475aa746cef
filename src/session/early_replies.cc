#include "nearkey/session/early_replies.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kRingMin = 16;
// Fewer dead bytes are not worth moving the others.
constexpr size_t kDeadMin = size_t{16} << 10;
}  // namespace

const EarlyReplies::Entry* EarlyReplies::kept(uint32_t ticket) const {
    if (ring_.empty()) return nullptr;
    const Entry& entry = ring_[ticket & (ring_.size() - 1)];
    return entry.is_kept && entry.ticket == ticket ? &entry : nullptr;
}

std::string_view EarlyReplies::bytes_of(const Entry& entry) const {
    if (entry.own != nullptr) return *entry.own;
    return std::string_view(shared_).substr(entry.offset, entry.size);
}

std::optional<EarlyReply> EarlyReplies::find(uint32_t ticket) const {
    const Entry* entry = kept(ticket);
    if (entry == nullptr) return std::nullopt;
    for (size_t i = 0; i < ring_.size() && is_broken(Rule::EarlyReply); ++i) {
        const bool is_other = ring_[i].is_kept && ring_[i].what == entry->what;
        if (is_other && ring_[i].ticket - ticket > entry->ticket - ticket) entry = &ring_[i];
    }
    return EarlyReply{entry->what, bytes_of(*entry)};
}

void EarlyReplies::add(uint32_t first, uint32_t ticket, What what, std::string_view bytes) {
    Entry* entry = kept(ticket);
    if (entry == nullptr) {
        make_room(ticket - first);
        entry = &place(ticket);
        NEARKEY_CHECK(!entry->is_kept);
        *entry = {.ticket = ticket, .is_kept = true, .own = {}};
        ++count_;
        bytes_ += kEntryBytes;
    }
    entry->what = what;
    if (!bytes.empty()) append(*entry, bytes);
    compact();
}

void EarlyReplies::append(Entry& entry, std::string_view bytes) {
    bytes_ += bytes.size();
    if (entry.own == nullptr && entry.size > 0 && entry.offset + entry.size != shared_.size()) {
        entry.own = std::make_unique<std::string>(bytes_of(entry));
        dead_ += entry.size;
    }
    if (entry.own != nullptr) {
        *entry.own += bytes;
    } else {
        if (entry.size == 0) entry.offset = shared_.size();
        shared_ += bytes;
    }
    entry.size += bytes.size();
}

void EarlyReplies::drop(uint32_t ticket) {
    Entry* const entry = kept(ticket);
    if (entry == nullptr) return;
    bytes_ -= kEntryBytes + entry->size;
    if (entry->own == nullptr) dead_ += entry->size;
    entry->own.reset();
    entry->is_kept = false;
    if (--count_ > 0) return compact();
    std::vector<Entry>().swap(ring_);
    std::string().swap(shared_);
    dead_ = 0;
}

// The ring has a place for each ticket from the first to this one, so that no two share one.
void EarlyReplies::make_room(size_t distance) {
    if (distance < ring_.size()) return;
    std::vector<Entry> old(std::bit_ceil(std::max(distance + 1, kRingMin)));
    old.swap(ring_);
    for (Entry& entry : old) {
        if (entry.is_kept) place(entry.ticket) = std::move(entry);
    }
}

void EarlyReplies::compact() {
    if (dead_ <= kDeadMin || dead_ <= shared_.size() / 2) return;
    std::string shared;
    for (Entry& entry : ring_) {
        if (!entry.is_kept || entry.own != nullptr) continue;
        const std::string_view bytes = bytes_of(entry);
        entry.offset = shared.size();
        shared += bytes;
    }
    shared_.swap(shared);
    dead_ = 0;
}

}  // namespace nearkey
