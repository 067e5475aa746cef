#include "nearkey/cache/shared_replies.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <unordered_set>

namespace nearkey {

namespace {

constexpr uint64_t kBytesPerBucket = 512;
constexpr uint64_t kWord = sizeof(uint64_t);
// Used items that go round the ring while room is made for one.
constexpr size_t kMovesMax = 8;

}  // namespace

// --- the whole ---

void SharedReplies::begin(std::span<char> memory, const Numbers& numbers) {
    NEARKEY_CHECK(!is_active());
    NEARKEY_CHECK(memory.size() >= kSizeMin && memory.size() % NEARKEY_SEGMENT_PAGE == 0);
    NEARKEY_CHECK(reinterpret_cast<uintptr_t>(memory.data()) % sizeof(Bucket) == 0);
    memory_ = memory;
    Header& fresh = header();
    fresh.magic = NEARKEY_SEGMENT_MAGIC;
    fresh.layout = NEARKEY_SEGMENT_LAYOUT;
    fresh.bucket_count = static_cast<uint32_t>(std::bit_floor(memory.size() / kBytesPerBucket));
    fresh.size = memory.size();
    fresh.sources_at = NEARKEY_SEGMENT_PAGE;
    fresh.buckets_at = fresh.sources_at + NEARKEY_SEGMENT_SOURCES * kWord;
    fresh.items_at = fresh.buckets_at + fresh.bucket_count * sizeof(Bucket);
    fresh.hash_seed = numbers.hash_seed;
    fresh.incarnation = numbers.incarnation;
    items_at_ = head_ = tail_ = fresh.items_at;
    is_wrapped_ = false;
    used_.assign(memory.size() / kUsedCell, false);
    is_active_ = true;
    for (size_t slot = 0; slot < proofs_.size(); ++slot)
        set_source(static_cast<uint16_t>(slot), proofs_[slot]);
    apply_options();
    begin_epoch();
    metrics_.shared_bytes = memory.size();
    metrics_.shared_items = 0;
}

void SharedReplies::end() {
    if (!is_active()) return;
    std::atomic_ref(header().is_over).store(1, std::memory_order_release);
    std::atomic_ref(header().epoch).store(0, std::memory_order_release);
    is_active_ = false;
    memory_ = {};
    used_ = {};
    metrics_.shared_bytes = 0;
    metrics_.shared_items = 0;
}

void SharedReplies::set_source(uint16_t slot, uint64_t proven_ms) {
    if (slot >= proofs_.size()) proofs_.resize(slot + size_t{1});
    proofs_[slot] = proven_ms;
    if (!is_active()) return;
    if (proven_ms == 0 && is_broken(Rule::SegmentSource)) return;
    uint64_t& proof = word(header().sources_at + slot * kWord);
    std::atomic_ref(proof).store(proven_ms, std::memory_order_release);
}

void SharedReplies::clear() {
    if (!is_broken(Rule::SegmentEpoch)) begin_epoch();
}

void SharedReplies::off() {
    ++offs_;
    if (!is_broken(Rule::SegmentOff)) tell_epoch();
}

void SharedReplies::on() {
    NEARKEY_CHECK(offs_ > 0);
    --offs_;
    begin_epoch();
}

void SharedReplies::apply_options() {
    if (!is_active()) return;
    std::atomic_ref(header().max_staleness_ms)
        .store(options_.max_staleness_ms, std::memory_order_release);
}

// Items of an epoch of 4,294,967,295 changes ago have left the ring long since.
void SharedReplies::begin_epoch() {
    epoch_ = std::max(epoch_ + 1, uint32_t{1});
    tell_epoch();
}

void SharedReplies::tell_epoch() {
    if (!is_active()) return;
    std::atomic_ref(header().epoch).store(offs_ == 0 ? epoch_ : 0, std::memory_order_release);
}

// --- one reply ---

void SharedReplies::put(const Identity& identity, const Reply& reply) {
    if (!is_active() || offs_ > 0 || identity.key.size() > NEARKEY_SEGMENT_KEY_MAX ||
        reply.value.size() > NEARKEY_SEGMENT_VALUE_MAX) {
        return;
    }
    const uint64_t hash = hash_of(identity.key);
    const size_t found = find(hash, identity.key, identity.database);
    if (found != kNone) {
        const uint64_t at = nearkey_segment_offset(bucket_of(hash).entries[found]);
        if (is_kept(item_at(at), identity, reply)) {
            used_[at / kUsedCell] = true;
            return;
        }
    }
    const Item item{.deadline_ms = reply.deadline_ms,
                    .epoch = epoch_,
                    .value_size = static_cast<uint32_t>(reply.value.size()),
                    .key_size = static_cast<uint16_t>(identity.key.size()),
                    .database = identity.database,
                    .source = reply.source,
                    .flags = reply.flags,
                    .command = identity.command};
    const uint64_t at = take_room(nearkey_segment_item_size(item.key_size, item.value_size));
    write_item(at, item, identity.key, reply.value);
    enter(hash, identity, at);
    ++metrics_.shared_stored_total;
}

// True if what is there does for the reply as well.
bool SharedReplies::is_kept(const Item& item, const Identity& identity, const Reply& reply) const {
    const bool is_of_get =
        (item.flags & NEARKEY_SEGMENT_NOT_GET) == 0 || (reply.flags & NEARKEY_SEGMENT_NOT_GET) != 0;
    const bool is_served =
        item.command == identity.command ? item.source == reply.source : proofs_[item.source] != 0;
    return item.epoch == epoch_ && is_of_get && is_served && item.deadline_ms >= reply.deadline_ms;
}

void SharedReplies::remove(const Identity& identity) {
    if (!is_active() || is_broken(Rule::SegmentVoid)) return;
    const uint64_t hash = hash_of(identity.key);
    const size_t found = find(hash, identity.key, identity.database);
    if (found == kNone) return;
    Bucket& bucket = bucket_of(hash);
    if (item_at(nearkey_segment_offset(bucket.entries[found])).command != identity.command) return;
    change(bucket, found, 0);
    --metrics_.shared_items;
}

bool SharedReplies::holds(const Identity& identity) const {
    if (!is_active() || offs_ > 0) return false;
    const uint64_t hash = hash_of(identity.key);
    const size_t found = find(hash, identity.key, identity.database);
    if (found == kNone) return false;
    return is_current(item_at(nearkey_segment_offset(bucket_of(hash).entries[found])));
}

// --- buckets ---

uint64_t SharedReplies::hash_of(std::string_view key) const {
    return XXH3_64bits_withSeed(key.data(), key.size(), header().hash_seed);
}

SharedReplies::Bucket& SharedReplies::bucket_of(uint64_t hash) const {
    const uint64_t index = hash & (header().bucket_count - uint64_t{1});
    return *reinterpret_cast<Bucket*>(memory_.data() + header().buckets_at +
                                      index * sizeof(Bucket));
}

bool SharedReplies::is_current(const Item& item) const {
    return item.epoch == epoch_ && proofs_[item.source] != 0;
}

// The entry of the key's item, whatever its command.
size_t SharedReplies::find(uint64_t hash, std::string_view key, uint16_t database) const {
    const Bucket& bucket = bucket_of(hash);
    for (size_t i = 0; i < NEARKEY_SEGMENT_ENTRIES; ++i) {
        const uint64_t entry = bucket.entries[i];
        if (entry == 0 || nearkey_segment_tag(entry) != nearkey_segment_tag(hash)) continue;
        const uint64_t at = nearkey_segment_offset(entry);
        const Item item = item_at(at);
        if (item.database == database && key_at(at, item) == key) return i;
    }
    return kNone;
}

size_t SharedReplies::find_at(const Bucket& bucket, uint64_t at) const {
    const auto* const end = std::end(bucket.entries);
    const auto* const found = std::find_if(std::begin(bucket.entries), end, [at](uint64_t entry) {
        return entry != 0 && nearkey_segment_offset(entry) == at;
    });
    return found == end ? kNone : static_cast<size_t>(found - bucket.entries);
}

// The order is a promise to readers.
void SharedReplies::change(Bucket& bucket, size_t index, uint64_t entry) {
    const std::atomic_ref version(bucket.version);
    const uint64_t before = version.load(std::memory_order_relaxed);
    version.store(before + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    std::atomic_ref(bucket.entries[index]).store(entry, std::memory_order_relaxed);
    version.store(before + 2, std::memory_order_release);
}

// In place of the key's former item, in a free entry, or in that of another which leaves.
void SharedReplies::enter(uint64_t hash, const Identity& identity, uint64_t at) {
    Bucket& bucket = bucket_of(hash);
    size_t index = find(hash, identity.key, identity.database);
    if (index == kNone) {
        const auto* const free = std::find(bucket.entries, std::end(bucket.entries), uint64_t{0});
        const bool is_full = free == std::end(bucket.entries);
        index = is_full ? choose_victim(bucket) : static_cast<size_t>(free - bucket.entries);
        ++(is_full ? metrics_.shared_evictions_total : metrics_.shared_items);
    }
    change(bucket, index, nearkey_segment_entry(hash, at));
}

// One that is void; else one that was not used; else the next in turn.
size_t SharedReplies::choose_victim(const Bucket& bucket) const {
    size_t unused = kNone;
    for (size_t i = 0; i < NEARKEY_SEGMENT_ENTRIES; ++i) {
        const uint64_t at = nearkey_segment_offset(bucket.entries[i]);
        if (!is_current(item_at(at))) return i;
        if (unused == kNone && !is_used(at)) unused = i;
    }
    return unused != kNone ? unused : bucket.version / 2 % NEARKEY_SEGMENT_ENTRIES;
}

// --- items ---

SharedReplies::Item SharedReplies::item_at(uint64_t at) const {
    Item item;
    std::memcpy(&item, memory_.data() + at, sizeof item);
    return item;
}

std::string_view SharedReplies::key_at(uint64_t at, const Item& item) const {
    return {memory_.data() + at + sizeof item, item.key_size};
}

void SharedReplies::write_item(uint64_t at, const Item& item, std::string_view key,
                               std::string_view value) {
    // Whoever reads any of these bytes finds that the version of the bucket which led him here has
    // changed.
    std::atomic_thread_fence(std::memory_order_release);
    used_[at / kUsedCell] = false;
    at = write_words(at, {reinterpret_cast<const char*>(&item), sizeof item});
    at = write_words(at, key);
    write_words(at, value);
}

uint64_t SharedReplies::write_words(uint64_t at, std::string_view bytes) {
    while (!bytes.empty()) {
        uint64_t next = 0;
        const size_t size = std::min<size_t>(bytes.size(), kWord);
        std::memcpy(&next, bytes.data(), size);
        std::atomic_ref(word(at)).store(next, std::memory_order_relaxed);
        bytes.remove_prefix(size);
        at += kWord;
    }
    return at;
}

// Makes room at the head for so many bytes.
uint64_t SharedReplies::take_room(uint64_t size) {
    NEARKEY_CHECK(size <= memory_.size() - items_at_);
    size_t moves_left = kMovesMax;
    while (is_wrapped_ ? size > tail_ - head_ : size > memory_.size() - head_) {
        if (is_wrapped_) {
            pass_tail(moves_left);
            continue;
        }
        wrap_at_ = head_;
        head_ = items_at_;
        is_wrapped_ = tail_ != wrap_at_;
        if (!is_wrapped_) tail_ = items_at_;
    }
    const uint64_t at = head_;
    head_ += size;
    return at;
}

// The oldest item goes in again at the head, or leaves. REQUIRES: the ring has come round.
void SharedReplies::pass_tail(size_t& moves_left) {
    const uint64_t at = tail_;
    const Item item = item_at(at);
    tail_ += nearkey_segment_item_size(item.key_size, item.value_size);
    is_wrapped_ = tail_ < wrap_at_;
    if (!is_wrapped_) tail_ = items_at_;
    Bucket& bucket = bucket_of(hash_of(key_at(at, item)));
    const size_t index = find_at(bucket, at);
    if (index == kNone) return;
    if (!is_broken(Rule::SegmentReuse)) change(bucket, index, 0);
    --metrics_.shared_items;
    if (!is_current(item)) return;
    if (moves_left == 0 || !is_used(at)) {
        ++metrics_.shared_evictions_total;
        return;
    }
    --moves_left;
    move_to_head(at, item);
}

// The room that it had is room at the head by now. REQUIRES: it is not entered.
void SharedReplies::move_to_head(uint64_t at, const Item& item) {
    const std::string key(key_at(at, item));
    const uint64_t value_at = at + sizeof item + nearkey_segment_padded(key.size());
    const std::string value(memory_.data() + value_at, item.value_size);
    const uint64_t to = head_;
    head_ += nearkey_segment_item_size(item.key_size, item.value_size);
    write_item(to, item, key, value);
    enter(hash_of(key), {key, item.database, item.command}, to);
}

// --- for tests ---

void SharedReplies::for_each(
    const std::function<void(const Identity& identity, const Reply& reply)>& visit) const {
    if (!is_active()) return;
    for (uint64_t i = 0; i < header().bucket_count; ++i) {
        const Bucket& bucket = bucket_of(i);
        for (const uint64_t entry : bucket.entries) {
            if (entry == 0) continue;
            const uint64_t at = nearkey_segment_offset(entry);
            const Item item = item_at(at);
            const std::string_view key = key_at(at, item);
            const char* const value =
                memory_.data() + at + sizeof item + nearkey_segment_padded(key.size());
            if (is_current(item)) {
                visit({key, item.database, item.command},
                      {{value, item.value_size}, item.flags, item.source, item.deadline_ms});
            }
        }
    }
}

void SharedReplies::check_invariants() const {
    if (!is_active()) return;
    std::unordered_set<uint64_t> items;
    const auto walk = [&](uint64_t at, uint64_t end) {
        while (at < end) {
            items.insert(at);
            const Item item = item_at(at);
            at += nearkey_segment_item_size(item.key_size, item.value_size);
        }
        NEARKEY_CHECK(at == end);
    };
    if (is_wrapped_) walk(tail_, wrap_at_);
    walk(is_wrapped_ ? items_at_ : tail_, head_);
    size_t entries = 0;
    for (uint64_t i = 0; i < header().bucket_count; ++i) {
        NEARKEY_CHECK(bucket_of(i).version % 2 == 0);
        for (const uint64_t entry : bucket_of(i).entries) {
            if (entry == 0) continue;
            ++entries;
            NEARKEY_CHECK(items.contains(nearkey_segment_offset(entry)));
        }
    }
    NEARKEY_CHECK(entries == metrics_.shared_items);
}

}  // namespace nearkey
