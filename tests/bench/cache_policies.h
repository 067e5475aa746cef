// Eviction policies as in their papers, for cache_policies.cc: LRU; CLOCK in the order of insertion
// with counts up to 3; SIEVE (Zhang et al., NSDI 2024); S3-FIFO (Yang et al., SOSP 2023), in which
// one hit is enough for a new entry to stay (two, as in the paper: a little worse at 10 MiB).
// Entries are stored for real (one malloc each, with key and reply), so that times can be compared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nearkey::bench {

inline const std::string kReply = "$100\r\n" + std::string(100, 'x') + "\r\n";

// The name of a key by its number, in place.
class KeyName {
public:
    std::string_view of(uint32_t number) {
        for (size_t i = sizeof(text_); i-- > 4; number /= 10)
            text_[i] = static_cast<char>('0' + number % 10);
        return {text_, sizeof(text_)};
    }

private:
    char text_[16] = {'k', 'e', 'y', ':'};
};

class Policy {
public:
    virtual ~Policy() = default;
    // Whether it was there. It is afterwards.
    virtual bool read(std::string_view key) = 0;
    virtual size_t entries() const = 0;
};

struct Node {
    Node* next;  // in its bucket
    Node* newer;
    Node* older;
    uint32_t hash;
    uint8_t uses;
    bool is_main;
    uint16_t key_size;
    char bytes[1];

    std::string_view key() const { return {bytes, key_size}; }
};

// Oldest to newest.
class Queue {
public:
    void push(Node* node);
    void remove(Node* node);
    Node* oldest() const { return oldest_; }
    Node* newest() const { return newest_; }
    size_t size() const { return size_; }

private:
    Node* oldest_ = nullptr;
    Node* newest_ = nullptr;
    size_t size_ = 0;
};

// What all have in common: the table, and how many entries fit into the budget.
class Stored : public Policy {
public:
    // Of an entry, for the two neighbours of a queue that anything can leave in the middle.
    static constexpr size_t kLinks = 16;

    Stored(size_t budget, size_t links, size_t ghost);
    ~Stored() override;
    Stored(const Stored&) = delete;
    Stored& operator=(const Stored&) = delete;

    bool read(std::string_view key) final;
    size_t entries() const final { return size_; }
    size_t capacity() const { return capacity_; }

protected:
    virtual void on_hit(Node* node) = 0;
    virtual void on_insert(Node* node) = 0;
    // Calls erase() of one.
    virtual void evict() = 0;
    void erase(Node* node);

private:
    const size_t capacity_;
    size_t size_ = 0;
    std::vector<Node*> buckets_;
};

class Lru final : public Stored {
public:
    explicit Lru(size_t budget) : Stored(budget, kLinks, 0) {}

private:
    void on_hit(Node* node) override;
    void on_insert(Node* node) override { queue_.push(node); }
    void evict() override;

    Queue queue_;
};

class Clock final : public Stored {
public:
    explicit Clock(size_t budget) : Stored(budget, kLinks, 0) {}

private:
    void on_hit(Node* node) override;
    void on_insert(Node* node) override { queue_.push(node); }
    void evict() override;

    Queue queue_;
};

class Sieve final : public Stored {
public:
    explicit Sieve(size_t budget) : Stored(budget, kLinks, 0) {}

private:
    void on_hit(Node* node) override { node->uses = 1; }
    void on_insert(Node* node) override { queue_.push(node); }
    void evict() override;

    Queue queue_;
    Node* hand_ = nullptr;
};

// A tenth for new entries, as many ghosts as there are entries; a ghost costs a fingerprint of
// 4 bytes.
class S3Fifo final : public Stored {
public:
    explicit S3Fifo(size_t budget) : Stored(budget, kLinks, 4) {}

private:
    void on_hit(Node* node) override;
    void on_insert(Node* node) override;
    void evict() override;
    bool evict_small();
    bool evict_main();

    Queue small_;
    Queue main_;
    std::deque<uint32_t> ghosts_;
    std::unordered_map<uint32_t, uint32_t> ghost_counts_;
};

}  // namespace nearkey::bench
