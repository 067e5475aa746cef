// Millions of random operations on the near cache and on a model with the same rules, which is so
// simple that it can be seen to be right.
#include "../rounds.h"
#include "nearkey/cache/near_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace nearkey::near_cache_model_test {

namespace {

using Identity = std::tuple<std::string, std::string, uint8_t, uint16_t>;

struct ModelEntry {
    std::string reply;
    uint64_t deadline_ms;
    NearCache::SourceId source;
};
struct ModelFill {
    Identity identity;
    NearCache::Ticket ticket;
    NearCache::SourceId source;
    bool is_open;
};

class Duel {
public:
    Duel(uint64_t seed, uint64_t memory) : random_(seed) {
        options_.memory = memory;
        options_.max_age_ms = 5000;
        options_.thrash_guard = false;
        for (int i = 0; i < 3; ++i)
            open_source();
    }

    void step() {
        now_ += pick(40) == 0 ? pick(50) : 0;
        const size_t what = pick(1000);
        if (what < 450) {
            find();
        } else if (what < 640) {
            begin_fill();
        } else if (what < 850) {
            end_fill();
        } else if (what < 900) {
            write();
        } else if (what < 960) {
            const std::string key = any_key();
            cache_.invalidate(key, InvalidationCause::Push, now_);
            drop(key);
        } else if (what < 997) {
            renew();
        } else if (what < 998) {
            cache_.sweep(pick(5000), now_);
        } else {
            step_all();
        }
        REQUIRE(cache_.bytes() <= options_.memory);
    }

    // What changes everything is rare.
    void step_all() {
        const size_t what = pick(100);
        if (barriers_ > 0 || what < 2) {
            barrier();
        } else if (what < 4) {
            cache_.clear(InvalidationCause::Flush, now_);
            drop_all();
        } else if (what < 8) {
            change_source();
        }
    }

    void finish() {
        while (!fills_.empty())
            end_fill();
        cache_.check_invariants();
    }
    uint64_t hits() const { return metrics_.near_cache_hits_total; }
    bool evicted() const { return metrics_.near_cache_evictions_total > 0; }
    void check() const { cache_.check_invariants(); }

private:
    size_t pick(size_t count) { return random_() % count; }
    std::string any_key() {
        const size_t number = pick(pick(4) == 0 ? 20000 : 300);
        std::string key = "key:" + std::to_string(number);
        return number % 7 == 0 ? key + std::string(number % 60, '.') : key;
    }
    Identity any_identity() {
        const bool has_arguments = pick(3) == 0;
        return {any_key(), has_arguments ? "field" + std::to_string(pick(6)) : "",
                static_cast<uint8_t>(has_arguments ? 9 : pick(2)),
                static_cast<uint16_t>(pick(8) == 0 ? 1 : 0)};
    }
    static CacheQuery query(const Identity& identity) {
        return {std::get<0>(identity), std::get<1>(identity), std::get<2>(identity),
                std::get<3>(identity)};
    }
    bool is_blocked(const std::string& key) const { return barriers_ > 0 || writes_.contains(key); }

    void find() {
        const Identity identity = any_identity();
        const auto found = cache_.find(query(identity), now_);
        const auto entry = entries_.find(identity);
        const bool is_stored =
            entry != entries_.end() && now_ / 16 < entry->second.deadline_ms / 16;
        const bool is_open = std::any_of(fills_.begin(), fills_.end(), [&](const ModelFill& fill) {
            return fill.is_open && fill.identity == identity;
        });
        using enum NearCache::Outcome;
        if (found.outcome == Hit) {
            REQUIRE(is_stored);
            REQUIRE(found.reply == entry->second.reply);
            REQUIRE(now_ < proven_[entry->second.source] + options_.max_staleness_ms);
        } else if (found.outcome == Unproven) {
            REQUIRE(is_stored);
            REQUIRE(now_ >= proven_[entry->second.source] + options_.max_staleness_ms);
        } else {
            REQUIRE((!is_stored || evicted()));
            const bool is_blocked_now = is_blocked(std::get<0>(identity));
            REQUIRE((found.outcome == Blocked) == is_blocked_now);
            REQUIRE((found.outcome == Pending) == (is_open && !is_blocked_now));
        }
    }
    void begin_fill() {
        const Identity identity = any_identity();
        auto source = proven_.begin();
        std::advance(source, static_cast<ptrdiff_t>(pick(proven_.size())));
        const auto ticket = cache_.begin_fill(query(identity), source->first);
        entries_.erase(identity);
        REQUIRE((ticket == 0) == is_blocked(std::get<0>(identity)));
        if (ticket == 0) return;
        for (ModelFill& fill : fills_)
            fill.is_open = fill.is_open && fill.identity != identity;
        fills_.push_back({identity, ticket, source->first, true});
    }
    void end_fill() {
        if (fills_.empty()) return;
        const size_t index = pick(fills_.size());
        const ModelFill fill = fills_[index];
        fills_.erase(fills_.begin() + static_cast<ptrdiff_t>(index));
        if (pick(8) == 0) {
            cache_.abandon(fill.ticket);
            return;
        }
        const std::string reply(pick(200), static_cast<char>('a' + pick(26)));
        const uint64_t deadline = pick(3) == 0 ? now_ + pick(2000) : UINT64_MAX;
        cache_.commit(fill.ticket, reply, deadline, now_);
        const uint64_t end = std::min(deadline, now_ + options_.max_age_ms);
        if (fill.is_open && end / 16 > now_ / 16) {
            entries_[fill.identity] = {reply, end, fill.source};
        }
    }
    void write() {
        const std::string key = any_key();
        if (writes_.size() < 30 && pick(2) == 0) {
            writes_.emplace(key, cache_.begin_write(key, now_));
            drop(key);
        } else if (!writes_.empty()) {
            cache_.end_write(writes_.begin()->second);
            writes_.erase(writes_.begin());
        }
    }
    void barrier() {
        if (barriers_ == 0) {
            barrier_ = cache_.begin_barrier(now_);
            drop_all();
        } else {
            cache_.end_write(barrier_);
        }
        barriers_ = 1 - barriers_;
    }
    void renew() {
        for (auto& [source, proven] : proven_) {
            if (pick(10) == 0) continue;
            proven = now_;
            cache_.renew_source(source, now_);
        }
    }
    void change_source() {
        const NearCache::SourceId lost = proven_.begin()->first;
        cache_.close_source(lost);
        proven_.erase(lost);
        std::erase_if(entries_, [&](const auto& entry) { return entry.second.source == lost; });
        for (ModelFill& fill : fills_)
            fill.is_open = fill.is_open && fill.source != lost;
        open_source();
    }
    void open_source() {
        const auto source = cache_.open_source(now_);
        REQUIRE(!proven_.contains(source));
        proven_[source] = now_;
    }
    void drop(const std::string& key) {
        // Identities are ordered by key first.
        auto entry = entries_.lower_bound({key, "", 0, 0});
        while (entry != entries_.end() && std::get<0>(entry->first) == key)
            entry = entries_.erase(entry);
        for (ModelFill& fill : fills_)
            fill.is_open = fill.is_open && std::get<0>(fill.identity) != key;
    }
    void drop_all() {
        entries_.clear();
        for (ModelFill& fill : fills_)
            fill.is_open = false;
    }

    std::mt19937_64 random_;
    NearCacheOptions options_;
    Metrics metrics_;
    NearCache cache_{options_, metrics_, 7};
    uint64_t now_ = 1000;
    std::map<Identity, ModelEntry> entries_;
    std::vector<ModelFill> fills_;
    std::map<NearCache::SourceId, uint64_t> proven_;
    std::multimap<std::string, NearCache::Write> writes_;
    NearCache::Write barrier_ = nullptr;
    int barriers_ = 0;
};

void fight(uint64_t seed, uint64_t memory, bool evicts) {
    Duel duel(seed, memory);
    for (unsigned i = 0; i < rounds(1'000'000); ++i) {
        duel.step();
        if (i % 50'000 == 0) duel.check();
    }
    duel.finish();
    CHECK(duel.evicted() == evicts);
    CHECK(duel.hits() > rounds(10'000));
}

}  // namespace

TEST_CASE("near cache: a million random operations agree with the model") {
    fight(20261124, uint64_t{64} << 20, false);
}

TEST_CASE("near cache: a million more, with too little memory, and it is never exceeded") {
    fight(4711, 80'000, true);
}

}  // namespace nearkey::near_cache_model_test
