#include "nearkey/cache/stored_replies.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

namespace nearkey {

namespace {
constexpr size_t kNewcomersShare = 10;  // one in so many entries, while others must go
constexpr size_t kRecordsSpare = 64;

// The value in a reply to GET; nothing: it is neither a value nor nil.
std::optional<std::string_view> value_of(std::string_view reply, bool& is_nil) {
    is_nil = reply == "$-1\r\n" || reply == "_\r\n";
    if (is_nil) return std::string_view();
    const size_t header = reply.find("\r\n");
    if (!reply.starts_with('$') || header == std::string_view::npos) return std::nullopt;
    return reply.substr(header + 2, reply.size() - header - 4);
}
}  // namespace

StoredReplies::StoredReplies(const Parts& parts, uint64_t seed)
    : options_(parts.options),
      metrics_(parts.metrics),
      sources_(parts.sources),
      guard_(parts.guard),
      shared_(parts.shared),
      table_(seed) {
    metrics_.near_cache_max_bytes = options_.memory;
    report_size();
}

// A head stands for the items with arguments.
bool StoredReplies::has_any(uint32_t key_hash) const {
    const Item* item = table_.chain(key_hash);
    while (item != nullptr && !(item->arguments().empty() && table_.hash_of(item) == key_hash))
        item = item->next;
    return item != nullptr;
}

void StoredReplies::put(const NewReply& fresh, uint64_t now_ms) {
    const CacheQuery& query = fresh.query;
    const uint64_t end_ms = std::min(fresh.deadline_ms, now_ms + options_.max_age_ms);
    const bool fits = query.key.size() <= kNamePartMax && query.arguments.size() <= kNamePartMax &&
                      fresh.reply.size() <= options_.value_max;
    if (!fits || static_cast<int32_t>(tick_of(end_ms) - tick_of(now_ms)) <= 0) {
        ++metrics_.near_cache_not_stored_total;
        return;
    }
    Item* item = ItemTable::make({
        .key = query.key,
        .arguments = query.arguments,
        .reply = fresh.reply,
        .flags = query.arguments.empty() ? uint8_t{0} : uint8_t{Item::kArguments},
    });
    item->filled = tick_of(now_ms);
    item->deadline = tick_of(end_ms);
    item->source = sources_.add_item(fresh.source);
    item->command = query.command;
    item->database = query.database;
    const uint32_t hash = table_.insert(item);
    ++size_;
    if (item->has(Item::kArguments)) link(item, query.key);
    ++metrics_.near_cache_stored_total;
    if (!newcomers_.recall(hash)) {
        item->flags |= Item::kNew;
        newcomers_.push(hash);
    }
    make_room(now_ms);
    trim_newcomers();
    report_size();
}

Item* StoredReplies::find_head(std::string_view key) {
    Item* item = table_.chain(table_.hash_of(key, {}));
    while (item != nullptr && !(item->has(Item::kHead) && item->key() == key))
        item = item->next;
    return item;
}

// Puts it into the list of its key's items, behind the head.
void StoredReplies::link(Item* item, std::string_view key) {
    Item* head = find_head(key);
    if (head == nullptr) {
        head = ItemTable::make({key, {}, {}, Item::kHead | Item::kArguments});
        table_.insert(head);
    }
    item->links().previous = head;
    item->links().next = head->links().next;
    if (head->links().next != nullptr) head->links().next->links().previous = item;
    head->links().next = item;
}

void StoredReplies::erase(Item* item) {
    NEARKEY_CHECK(!item->has(Item::kHead) && size_ > 0);
    if (item->has(Item::kArguments)) {
        Item* previous = item->links().previous;
        Item* next = item->links().next;
        previous->links().next = next;
        if (next != nullptr) next->links().previous = previous;
        if (next == nullptr && previous->has(Item::kHead)) table_.erase(previous);
    }
    if (item->has(Item::kShared)) shared_.remove({item->key(), item->database, item->command});
    std::replace(watched_.begin(), watched_.end(), static_cast<const Item*>(item),
                 static_cast<const Item*>(nullptr));
    --size_;
    sources_.remove_item(item->source);
    table_.erase(item);
    trim_newcomers();
    report_size();
}

void StoredReplies::share(Item& item, Sharing sharing, uint64_t now_ms) {
    bool is_nil = false;
    const auto value = value_of(item.reply(), is_nil);
    if (!value) return;
    const auto left = static_cast<int32_t>(item.deadline - tick_of(now_ms));
    const uint64_t deadline = now_ms / kItemTickMs + static_cast<uint64_t>(std::max(left, 0));
    uint8_t flags = is_nil ? NEARKEY_SEGMENT_NIL : 0;
    if (is_nil && sharing == Sharing::Part) flags |= NEARKEY_SEGMENT_NOT_GET;
    item.flags |= Item::kShared;
    shared_.put({item.key(), item.database, item.command},
                {*value, flags, item.source, deadline * kItemTickMs});
}

void StoredReplies::report_size() {
    metrics_.near_cache_entries = size_;
    metrics_.near_cache_bytes = bytes();
}

void StoredReplies::drop(std::string_view key, uint32_t hash, uint64_t now_ms) {
    const auto drop = [&](Item* item) {
        if (options_.thrash_guard && !sources_.is_void(*item, now_ms))
            guard_.on_dropped(key, item->flags & Item::kUsesMask, now_ms);
        erase(item);
    };
    Item* head = nullptr;
    for (Item* item = table_.chain(hash); item != nullptr;) {
        Item* next = item->next;
        if (item->arguments().empty() && item->key() == key) {
            if (item->has(Item::kHead)) {
                head = item;
            } else {
                drop(item);
            }
        }
        item = next;
    }
    // The last one takes the head with it.
    while (head != nullptr) {
        Item* first = head->links().next;
        const bool is_last = first->links().next == nullptr;
        drop(first);
        if (is_last) head = nullptr;
    }
}

// A policy after S3-FIFO (the header says why). Newcomers leave in the order in which they came;
// the others are under the hand of a clock that goes round the table: one that was hit stays.
void StoredReplies::make_room(uint64_t now_ms) {
    // The newcomers once and four rounds of the hand, with some of the newcomers between, take
    // everything: nothing has more than three uses.
    for (size_t steps = 8 * table_.buckets() + 8 * size_ + newcomers_.size();
         steps > 0 && size_ > 0 && bytes() > options_.memory; --steps) {
        if (has_newcomers_to_judge()) {
            judge_newcomer(now_ms);
        } else {
            step_hand(now_ms);
        }
    }
}

// True while they are more than their share. All of them are when nothing else is left.
bool StoredReplies::has_newcomers_to_judge() const {
    return newcomers_.size() * kNewcomersShare > size_;
}

// A newcomer that was hit stays.
void StoredReplies::judge_newcomer(uint64_t now_ms) {
    Item* item = take_newcomer();
    if (item == nullptr) return;
    const bool is_gone = sources_.is_void(*item, now_ms);
    if (!is_gone && (item->flags & Item::kUsesMask) != 0) {
        item->flags &= static_cast<uint8_t>(~Item::kUsesMask);
        return;
    }
    if (!is_gone) {
        newcomers_.remember(table_.hash_of(item), size_);
        ++metrics_.near_cache_evictions_total;
    }
    erase(item);
}

// Takes the oldest off the newcomers; null if the item has gone already.
Item* StoredReplies::take_newcomer() {
    const uint32_t hash = newcomers_.pop();
    Item* item = table_.chain(hash);
    while (item != nullptr && !(item->has(Item::kNew) && table_.hash_of(item) == hash))
        item = item->next;
    if (item != nullptr) item->flags &= static_cast<uint8_t>(~Item::kNew);
    return item;
}

// While there is room, all are newcomers and nobody is judged; but records whose items are gone
// must not pile up, so the oldest just stay. Two for each that comes or goes: a surplus ends.
void StoredReplies::trim_newcomers() {
    for (int i = 0; i < 2 && newcomers_.size() > size_ + size_ / 4 + kRecordsSpare; ++i)
        take_newcomer();
}

void StoredReplies::step_hand(uint64_t now_ms) {
    if (hand_ >= table_.buckets()) hand_ = 0;
    for (Item* item = table_.chain_at(hand_); item != nullptr;) {
        const bool is_safe = item->has(Item::kHead) || item->has(Item::kNew);
        if (is_safe) {
            item = item->next;
        } else if (!sources_.is_void(*item, now_ms) && (item->flags & Item::kUsesMask) != 0) {
            --item->flags;
            item = item->next;
        } else {
            if (!sources_.is_void(*item, now_ms)) ++metrics_.near_cache_evictions_total;
            // It may take its head with it, which may be the next one: the rest has its turn later.
            erase(item);
            return;
        }
    }
    ++hand_;
}

void StoredReplies::sweep(size_t buckets, uint64_t now_ms) {
    for (; buckets > 0 && size_ > 0; --buckets) {
        if (hand_ >= table_.buckets()) hand_ = 0;
        Item* item = table_.chain_at(hand_);
        while (item != nullptr && (item->has(Item::kHead) || !sources_.is_void(*item, now_ms) ||
                                   sources_.is_kept(*item, now_ms)))
            item = item->next;
        if (item == nullptr) {
            ++hand_;
        } else {
            erase(item);
        }
    }
}

void StoredReplies::shrink() {
    newcomers_.shrink(size_);
    report_size();
}

size_t StoredReplies::add_watch() {
    watched_.push_back(nullptr);
    return watched_.size() - 1;
}

// --- for tests ---

// True if each has a record of its own, or some could never be evicted.
bool StoredReplies::are_newcomers_recorded() const {
    std::unordered_map<uint32_t, size_t> records;
    for (const uint32_t hash : newcomers_.hashes())
        ++records[hash];
    for (size_t i = 0; i < table_.buckets(); ++i) {
        for (Item* item = table_.chain_at(i); item != nullptr; item = item->next) {
            if (item->has(Item::kNew) && records[table_.hash_of(item)]-- == 0) return false;
        }
    }
    return true;
}

void StoredReplies::check_invariants() const {
    size_t entries = 0;
    size_t items = 0;
    std::vector<uint32_t> of_slot;
    for (size_t i = 0; i < table_.buckets(); ++i) {
        for (Item* item = table_.chain_at(i); item != nullptr; item = item->next) {
            ++items;
            if (item->has(Item::kHead)) {
                NEARKEY_CHECK(item->links().next != nullptr && item->links().previous == nullptr);
                continue;
            }
            ++entries;
            if (of_slot.size() <= item->source) of_slot.resize(item->source + size_t{1});
            ++of_slot[item->source];
            if (!item->has(Item::kArguments)) continue;
            const Item* previous = item->links().previous;
            NEARKEY_CHECK(previous != nullptr && previous->key() == item->key());
        }
    }
    NEARKEY_CHECK(entries == size_ && items == table_.size());
    NEARKEY_CHECK(are_newcomers_recorded());
    sources_.check_items(of_slot);
    check_shared();
}

// What readers of shared memory may see is stored, and equal.
void StoredReplies::check_shared() const {
    shared_.check_invariants();
    shared_.for_each(
        [this](const SharedReplies::Identity& identity, const SharedReplies::Reply& reply) {
            const Item* item = find({identity.key, {}, identity.command, identity.database});
            NEARKEY_CHECK(item != nullptr && item->has(Item::kShared));
            NEARKEY_CHECK(item->source == reply.source);
            NEARKEY_CHECK(item->deadline == tick_of(reply.deadline_ms));
            bool is_nil = false;
            NEARKEY_CHECK(value_of(item->reply(), is_nil) == reply.value);
            NEARKEY_CHECK(is_nil == ((reply.flags & NEARKEY_SEGMENT_NIL) != 0));
        });
}

}  // namespace nearkey
