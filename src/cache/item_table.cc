#include "nearkey/cache/item_table.h"

#include "nearkey/base/check.h"

#define XXH_INLINE_ALL
#include <malloc.h>
#include <xxhash.h>
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace nearkey {

namespace {

// The header ends behind the last field, without the struct's padding.
constexpr size_t kHeaderSize = 28;
static_assert(offsetof(Item, flags) + 1 == kHeaderSize);
constexpr size_t kLinksOffset = sizeof(Item);
constexpr size_t kLinkedOffset = kLinksOffset + offsetof(ItemLinks, arguments_size) + 4;
// malloc's own header before each piece.
constexpr size_t kMallocHeader = 8;

const char* bytes_at(const Item* item, size_t offset) {
    return reinterpret_cast<const char*>(item) + offset;
}

size_t content_offset(uint8_t flags) {
    return (flags & Item::kArguments) != 0 ? kLinkedOffset : kHeaderSize;
}

size_t size_of(const ItemContent& content) {
    const size_t size = content_offset(content.flags) + content.key.size() +
                        content.arguments.size() + content.reply.size();
    return std::max(size, sizeof(Item));
}

size_t memory_of(Item* item) {
    return malloc_usable_size(item) + kMallocHeader;
}

}  // namespace

ItemLinks& Item::links() {
    NEARKEY_CHECK(has(kArguments));
    return *reinterpret_cast<ItemLinks*>(reinterpret_cast<char*>(this) + kLinksOffset);
}

std::string_view Item::key() const {
    return {bytes_at(this, content_offset(flags)), key_size};
}

std::string_view Item::arguments() const {
    if (!has(kArguments)) return {};
    const auto& links = *reinterpret_cast<const ItemLinks*>(bytes_at(this, kLinksOffset));
    return {bytes_at(this, kLinkedOffset) + key_size, links.arguments_size};
}

std::string_view Item::reply() const {
    return {bytes_at(this, content_offset(flags)) + key_size + arguments().size(), reply_size};
}

ItemTable::ItemTable(uint64_t seed) {
    static_assert(sizeof(secret_) == XXH_SECRET_DEFAULT_SIZE);
    XXH3_generateSecret(secret_, sizeof(secret_), &seed, sizeof(seed));
    segments_.push_back(std::make_unique<Segment>());
}

ItemTable::~ItemTable() {
    for (size_t i = 0; i < buckets_; ++i) {
        for (Item* item = bucket(i); item != nullptr;)
            free(std::exchange(item, item->next));
    }
}

Item* ItemTable::make(const ItemContent& content) {
    // Making the links may write what is behind their last member, where the content begins.
    const bool has_links = (content.flags & Item::kArguments) != 0;
    const size_t made = has_links ? kLinksOffset + sizeof(ItemLinks) : 0;
    void* memory = malloc(std::max(size_of(content), made));
    NEARKEY_CHECK(memory != nullptr);
    Item* item = new (memory) Item{};
    item->key_size = static_cast<uint16_t>(content.key.size());
    item->reply_size = static_cast<uint32_t>(content.reply.size());
    item->flags = content.flags;
    if (item->has(Item::kArguments)) {
        new (&item->links()) ItemLinks{
            .previous = nullptr,
            .next = nullptr,
            .arguments_size = static_cast<uint32_t>(content.arguments.size()),
        };
    }
    char* out = static_cast<char*>(memory) + content_offset(content.flags);
    for (const std::string_view part : {content.key, content.arguments, content.reply}) {
        if (!part.empty()) std::memcpy(out, part.data(), part.size());
        out += part.size();
    }
    return item;
}

uint32_t ItemTable::hash_of(std::string_view key, std::string_view arguments) const {
    const auto hash = [this](std::string_view bytes) {
        return XXH3_64bits_withSecret(bytes.data(), bytes.size(), secret_, sizeof(secret_));
    };
    uint64_t result = hash(key);
    if (!arguments.empty()) result = XXH3_64bits_withSeed(&result, sizeof(result), hash(arguments));
    return static_cast<uint32_t>(result ^ (result >> 32));
}

uint32_t ItemTable::hash_of(const Item* item) const {
    return hash_of(item->key(), item->arguments());
}

uint32_t ItemTable::insert(Item* item) {
    const uint32_t hash = hash_of(item);
    Item*& first = bucket(index_of(hash));
    item->next = std::exchange(first, item);
    item_bytes_ += memory_of(item);
    ++size_;
    if (size_ > buckets_) split();
    return hash;
}

void ItemTable::erase(Item* item) {
    Item** link = &bucket(index_of(hash_of(item)));
    while (*link != item) {
        NEARKEY_CHECK(*link != nullptr);
        link = &(*link)->next;
    }
    *link = item->next;
    item_bytes_ -= memory_of(item);
    --size_;
    free(item);
    // Two at a time, so that an emptied table shrinks to its end.
    for (int i = 0; i < 2 && size_ < buckets_ / 2 && buckets_ > kSegment; ++i)
        merge();
}

// The bucket at buckets_ - base_ gives those items away that belong to the new last one.
void ItemTable::split() {
    const size_t from = buckets_ - base_;
    if (buckets_ == segments_.size() * kSegment) segments_.push_back(std::make_unique<Segment>());
    const size_t to = buckets_++;
    Item** link = &bucket(from);
    while (*link != nullptr) {
        Item* item = *link;
        if ((hash_of(item) & (base_ * 2 - 1)) == to) {
            *link = item->next;
            item->next = std::exchange(bucket(to), item);
        } else {
            link = &item->next;
        }
    }
    if (buckets_ == base_ * 2) base_ *= 2;
}

// The last bucket goes back into the one that it came from.
void ItemTable::merge() {
    if (buckets_ == base_) base_ /= 2;
    const size_t from = --buckets_;
    Item** end = &bucket(from - base_);
    while (*end != nullptr)
        end = &(*end)->next;
    *end = std::exchange(bucket(from), nullptr);
    // One to spare, so that a size about its border does not ask for memory again and again.
    if (buckets_ + kSegment < (segments_.size() - 1) * kSegment) segments_.pop_back();
}

}  // namespace nearkey
