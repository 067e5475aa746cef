// Durations: a count for each of a fixed row of bounds, and the sum.
// Plain numbers in an array, written by the event loop alone; one addition costs a few
// instructions and no clock. Durations are in microseconds.
#pragma once

#include "nearkey/base/count.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nearkey {

class Histogram {
public:
    // Inclusive, as Prometheus has it: 1, 2 and 5 in each decade from 10 us to 10 s.
    static constexpr std::array<uint32_t, 19> kBounds = {
        10,      20,        50,        100,       200,       500,     1'000,
        2'000,   5'000,     10'000,    20'000,    50'000,    100'000, 200'000,
        500'000, 1'000'000, 2'000'000, 5'000'000, 10'000'000};
    static constexpr size_t kBuckets = kBounds.size() + 1;  // the last: longer than all bounds

    void add(uint32_t us, uint64_t times) {
        counts_[bucket_of(us)] += times;
        sum_us_ += us * times;
    }

    static size_t bucket_of(uint32_t us) {
        // Between two powers of two there is at most one bound.
        const size_t first = kFirst[static_cast<size_t>(std::bit_width(us))];
        return first + (us > kEnds[first] ? 1 : 0);
    }

    uint64_t count() const {
        uint64_t all = 0;
        for (const Count& count : counts_)
            all += count;
        return all;
    }
    const std::array<Count, kBuckets>& counts() const { return counts_; }
    uint64_t sum_us() const { return sum_us_; }
    // Adds the counts of another thread's histogram.
    void add(const Histogram& other) {
        for (size_t i = 0; i < kBuckets; ++i)
            counts_[i] += other.counts_[i];
        sum_us_ += other.sum_us_;
    }

private:
    // The bounds, and the one of durations that are longer than all.
    static constexpr std::array<uint32_t, kBuckets> kEnds = [] {
        std::array<uint32_t, kBuckets> ends{};
        for (size_t i = 0; i < kBounds.size(); ++i)
            ends[i] = kBounds[i];
        ends[kBounds.size()] = UINT32_MAX;
        return ends;
    }();
    // The bucket of the smallest number with each count of bits.
    static constexpr std::array<uint8_t, 33> kFirst = [] {
        std::array<uint8_t, 33> first{};
        for (size_t bits = 1; bits < first.size(); ++bits) {
            const uint32_t smallest = uint32_t{1} << (bits - 1);
            while (smallest > kEnds[first[bits]])
                ++first[bits];
        }
        return first;
    }();

    std::array<Count, kBuckets> counts_;
    Count sum_us_;
};

// The kind of data of a command: the first of these categories of the server (ACL CAT).
#define NEARKEY_FAMILIES(X)       \
    X(String, "string")           \
    X(Hash, "hash")               \
    X(List, "list")               \
    X(Set, "set")                 \
    X(SortedSet, "sortedset")     \
    X(Stream, "stream")           \
    X(Bitmap, "bitmap")           \
    X(HyperLogLog, "hyperloglog") \
    X(Geo, "geo")                 \
    X(PubSub, "pubsub")           \
    X(Scripting, "scripting")     \
    X(Transaction, "transaction") \
    X(Connection, "connection")   \
    X(Keyspace, "keyspace")       \
    X(Other, "other")

// The outcomes of a request.
#define NEARKEY_OUTCOMES(X)                                                                \
    X(Hit, "hit")             /* from the near cache */                                    \
    X(Miss, "miss")           /* by Valkey, a read that the near cache could not answer */ \
    X(Forwarded, "forwarded") /* by Valkey, anything else */                               \
    X(Local, "local")         /* by nearkey itself */                                      \
    X(Failed, "failed")       /* by an error of nearkey's, in place of Valkey's reply */

enum class CommandFamily : uint8_t {
#define NEARKEY_NAME(name, text) name,
    NEARKEY_FAMILIES(NEARKEY_NAME)
};
enum class RequestOutcome : uint8_t { NEARKEY_OUTCOMES(NEARKEY_NAME) };
#undef NEARKEY_NAME

#define NEARKEY_TEXT(name, text) std::string_view(text),
inline constexpr std::array kFamilyNames = {NEARKEY_FAMILIES(NEARKEY_TEXT)};
inline constexpr std::array kOutcomeNames = {NEARKEY_OUTCOMES(NEARKEY_TEXT)};
#undef NEARKEY_TEXT

// All histograms. Each is a row of histogram_rows() in base/metrics.cc.
struct Histograms {
    std::array<std::array<Histogram, kOutcomeNames.size()>, kFamilyNames.size()> request;
    std::array<Histogram, kFamilyNames.size()> upstream;
    Histogram own;
    Histogram queue;
    Histogram turn;

    void add(const Histograms& other) {
        for (size_t family = 0; family < kFamilyNames.size(); ++family) {
            for (size_t outcome = 0; outcome < kOutcomeNames.size(); ++outcome)
                request[family][outcome].add(other.request[family][outcome]);
            upstream[family].add(other.upstream[family]);
        }
        own.add(other.own);
        queue.add(other.queue);
        turn.add(other.turn);
    }
};

}  // namespace nearkey
