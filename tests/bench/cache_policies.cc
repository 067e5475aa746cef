// Replays patterns of reads on eviction policies and on the near cache itself, and prints for each
// its hit ratio and nanoseconds per read: scripts/bench --policies.
// All have the same budget of bytes. An entry costs what the near cache's costs (header, key,
// reply, its share of the buckets, what malloc adds); each policy pays for its own links and ghosts
// too. The first half of a pattern warms up and is not counted. Seeds are fixed: ratios are
// repeatable.
#include "cache_policies.h"
#include "cache_patterns.h"

#include "nearkey/cache/near_cache.h"

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::bench {

namespace {

constexpr size_t kBudgets[] = {1 << 20, 10 << 20};

class RealCache final : public Policy {
public:
    explicit RealCache(size_t budget) : cache_(options_, metrics_, 1) {
        options_.memory = budget;
        options_.max_staleness_ms = UINT64_MAX;
        source_ = cache_.open_source(0);
    }
    bool read(std::string_view key) override {
        const CacheQuery query{key, {}, 1, 0};
        if (cache_.find(query, kNow).outcome == NearCache::Outcome::Hit) return true;
        const NearCache::Ticket ticket = cache_.begin_fill(query, source_);
        cache_.commit(ticket, kReply, UINT64_MAX, kNow);
        return false;
    }
    size_t entries() const override { return cache_.entries(); }

private:
    static constexpr uint64_t kNow = 1000;

    NearCacheOptions options_;
    Metrics metrics_;
    NearCache cache_;
    NearCache::SourceId source_ = NearCache::kNoSource;
};

struct Kind {
    const char* name;
    std::unique_ptr<Policy> (*make)(size_t budget);
};

template <class P>
std::unique_ptr<Policy> make(size_t budget) {
    return std::make_unique<P>(budget);
}

const Kind kKinds[] = {
    {"LRU", make<Lru>},        {"CLOCK", make<Clock>},          {"SIEVE", make<Sieve>},
    {"S3-FIFO", make<S3Fifo>}, {"near cache", make<RealCache>},
};

struct Result {
    double hits_percent;
    double ns_per_read;
    size_t entries;
};

Result replay(Policy& policy, const std::vector<uint32_t>& pattern) {
    KeyName name;
    const size_t half = pattern.size() / 2;
    for (size_t i = 0; i < half; ++i)
        policy.read(name.of(pattern[i]));
    size_t hits = 0;
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = half; i < pattern.size(); ++i)
        hits += policy.read(name.of(pattern[i])) ? 1 : 0;
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    const auto reads = static_cast<double>(pattern.size() - half);
    return {100 * static_cast<double>(hits) / reads, took.count() / reads, policy.entries()};
}

void print_row(const std::string& pattern_name, const std::vector<uint32_t>& pattern,
               size_t budget) {
    std::printf("%-34s", pattern_name.c_str());
    std::string sizes;
    for (const Kind& kind : kKinds) {
        const std::unique_ptr<Policy> policy = kind.make(budget);
        const Result result = replay(*policy, pattern);
        std::printf("%7.2f %5.0f   ", result.hits_percent, result.ns_per_read);
        sizes += (sizes.empty() ? "" : ", ") + std::to_string(result.entries);
    }
    std::printf(" entries %s\n", sizes.c_str());
    std::fflush(stdout);
}

void print_all() {
    for (const size_t budget : kBudgets) {
        std::printf("%zu MiB: hits in %%, ns per read\n%-34s", budget >> 20, "");
        for (const Kind& kind : kKinds)
            std::printf("%13s   ", kind.name);
        std::printf("\n");
        const size_t entries = Lru(budget).capacity();
        for (const Pattern& pattern : patterns(entries))
            print_row(pattern.name, pattern.keys(), budget);
    }
}

}  // namespace

}  // namespace nearkey::bench

int main() {
    nearkey::bench::print_all();
}
