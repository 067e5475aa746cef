#include "cache_policies.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>

namespace nearkey::bench {

namespace {

constexpr uint8_t kUsesMax = 3;
constexpr size_t kKeySize = 16;
constexpr size_t kHeader = 28;  // the near cache's
constexpr size_t kBucket = 8;

// malloc keeps 8 bytes before each piece and gives multiples of 16.
size_t allocated(size_t size) {
    return std::max<size_t>(32, (size + 8 + 15) / 16 * 16);
}

}  // namespace

void Queue::push(Node* node) {
    node->newer = nullptr;
    node->older = newest_;
    (newest_ == nullptr ? oldest_ : newest_->newer) = node;
    newest_ = node;
    ++size_;
}

void Queue::remove(Node* node) {
    (node->newer == nullptr ? newest_ : node->newer->older) = node->older;
    (node->older == nullptr ? oldest_ : node->older->newer) = node->newer;
    --size_;
}

Stored::Stored(size_t budget, size_t links, size_t ghost)
    : capacity_(budget / (allocated(kHeader + links + kKeySize + kReply.size()) + kBucket + ghost)),
      buckets_(std::bit_ceil(capacity_)) {
}

Stored::~Stored() {
    for (Node* node : buckets_)
        while (node != nullptr)
            free(std::exchange(node, node->next));
}

bool Stored::read(std::string_view key) {
    const auto hash = static_cast<uint32_t>(std::hash<std::string_view>()(key));
    const size_t bucket = hash & (buckets_.size() - 1);
    for (Node* node = buckets_[bucket]; node != nullptr; node = node->next) {
        if (node->key() != key) continue;
        on_hit(node);
        return true;
    }
    if (size_ >= capacity_) evict();
    auto* node = static_cast<Node*>(malloc(offsetof(Node, bytes) + key.size() + kReply.size()));
    *node = {
        buckets_[bucket], nullptr, nullptr, hash, 0, false, static_cast<uint16_t>(key.size()), {0}};
    std::memcpy(node->bytes, key.data(), key.size());
    std::memcpy(node->bytes + key.size(), kReply.data(), kReply.size());
    buckets_[bucket] = node;
    ++size_;
    on_insert(node);
    return false;
}

void Stored::erase(Node* node) {
    Node** link = &buckets_[node->hash & (buckets_.size() - 1)];
    while (*link != node)
        link = &(*link)->next;
    *link = node->next;
    free(node);
    --size_;
}

void Lru::on_hit(Node* node) {
    queue_.remove(node);
    queue_.push(node);
}

void Lru::evict() {
    Node* node = queue_.oldest();
    queue_.remove(node);
    erase(node);
}

void Clock::on_hit(Node* node) {
    if (node->uses < kUsesMax) ++node->uses;
}

void Clock::evict() {
    Node* node = queue_.oldest();
    for (; node->uses > 0; node = queue_.oldest()) {
        --node->uses;
        queue_.remove(node);
        queue_.push(node);
    }
    queue_.remove(node);
    erase(node);
}

void Sieve::evict() {
    Node* node = hand_ == nullptr ? queue_.oldest() : hand_;
    while (node->uses > 0) {
        node->uses = 0;
        node = node->newer == nullptr ? queue_.oldest() : node->newer;
    }
    hand_ = node->newer;
    queue_.remove(node);
    erase(node);
}

void S3Fifo::on_hit(Node* node) {
    if (node->uses < kUsesMax) ++node->uses;
}

void S3Fifo::on_insert(Node* node) {
    node->is_main = ghost_counts_.contains(node->hash);
    (node->is_main ? main_ : small_).push(node);
}

void S3Fifo::evict() {
    const bool is_small_first = small_.size() * 10 >= capacity() || main_.oldest() == nullptr;
    if (is_small_first && evict_small()) return;
    while (!evict_main()) {
    }
}

// False: nothing of it may go.
bool S3Fifo::evict_small() {
    for (Node* node = small_.oldest(); node != nullptr; node = small_.oldest()) {
        small_.remove(node);
        if (node->uses > 0) {
            node->uses = 0;
            node->is_main = true;
            main_.push(node);
            continue;
        }
        ghosts_.push_back(node->hash);
        ++ghost_counts_[node->hash];
        if (ghosts_.size() > capacity() * 9 / 10) {
            const auto oldest = ghost_counts_.find(ghosts_.front());
            ghosts_.pop_front();
            if (--oldest->second == 0) ghost_counts_.erase(oldest);
        }
        erase(node);
        return true;
    }
    return false;
}

bool S3Fifo::evict_main() {
    Node* node = main_.oldest();
    main_.remove(node);
    if (node->uses > 0) {
        --node->uses;
        main_.push(node);
        return false;
    }
    erase(node);
    return true;
}

}  // namespace nearkey::bench
