// The last hour of what the status page charts, and what happened in it: /history of the admin
// server. Owned by Daemon, which looks once a second; requests pay nothing for it.
// The one rule: its memory has a bound (kBytesMax), whatever happens. Nothing is written anywhere:
// a restart begins anew, and an upgrade as well.
//
// Times are those of Loop::boot_ms(), which no change of the clock moves.
#pragma once

#include "nearkey/base/metrics.h"

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// A name, as /history has it. Rates are of the step, percentiles of the requests in it, gauges of
// its end.
#define NEARKEY_HISTORY_FIGURES(X)                            \
    X(Commands, "commands_per_second")                        \
    X(Forwarded, "forwarded_per_second")                      \
    X(Hits, "hits_per_second")                                \
    X(Misses, "misses_per_second")                            \
    X(Failed, "failed_per_second")                            \
    X(Refused, "refused_per_second")                          \
    X(Evictions, "evictions_per_second")                      \
    X(RequestP50, "request_p50_us")                           \
    X(RequestP99, "request_p99_us")                           \
    X(OwnP50, "own_p50_us")                                   \
    X(OwnP99, "own_p99_us")                                   \
    X(ValkeyP50, "valkey_p50_us")                             \
    X(ValkeyP99, "valkey_p99_us")                             \
    X(QueueP50, "queue_p50_us")                               \
    X(QueueP99, "queue_p99_us")                               \
    X(Clients, "clients")                                     \
    X(UpstreamConnections, "connections")                     \
    X(InFlight, "in_flight")                                  \
    X(Queued, "queued")                                       \
    X(CacheBytes, "near_cache_bytes")                         \
    X(ClientBytes, "client_bytes")                            \
    X(Ready, "ready")       /* 1 if it was so all the time */ \
    X(Degraded, "degraded") /* 1 if it was so at any time */

enum class Figure : uint8_t {
#define NEARKEY_FIGURE(name, text) name,
    NEARKEY_HISTORY_FIGURES(NEARKEY_FIGURE)
#undef NEARKEY_FIGURE
};

// What happens beside what is counted; counters have rows of their own in history.cc.
enum class HistoryEvent : uint8_t {
    Started,
    Upgraded,
    NotReady,
    Degraded,
    Reloaded,
    Refused,
    CertificatesRenewed,
    CertificatesRefused,
};

class History {
public:
    static constexpr uint64_t kStepMs = 5000;
    static constexpr size_t kSamplesMax = 720;  // an hour
    static constexpr size_t kEventsMax = 64;
    static constexpr size_t kWordsMax = 200;  // bytes
    // What comes again so soon, with the same words, is the same event, which lasts.
    static constexpr uint64_t kSameWithinMs = 60'000;
    // Of all samples and events.
    static constexpr size_t kBytesMax = size_t{96} << 10;

#define NEARKEY_FIGURE(name, text) std::string_view(text),
    static constexpr std::array kFigures = {NEARKEY_HISTORY_FIGURES(NEARKEY_FIGURE)};
#undef NEARKEY_FIGURE

    struct Sample {
        uint64_t at_ms = 0;                           // its end
        std::array<float, kFigures.size()> values{};  // not a number: nothing to tell of

        float operator[](Figure figure) const { return values[static_cast<size_t>(figure)]; }
    };
    struct Event {
        size_t row = 0;  // of the table of kinds
        uint64_t begin_ms = 0;
        uint64_t end_ms = 0;
        bool is_open = false;  // it has not ended
        uint64_t count = 0;    // how often, or of how many
        std::string words = {};

        std::string_view kind() const;
        std::string_view advice() const;
    };

    explicit History(uint64_t now_ms);

    // Each second. `server`: the address of the one that is followed.
    void look(uint64_t now_ms, const MetricsGroup& all, std::string_view server);
    void note(HistoryEvent event, std::string_view words, uint64_t now_ms);
    // `degraded`: why not all keys are served; else empty.
    void note_health(bool is_ready, std::string_view reason, std::string_view degraded,
                     uint64_t now_ms);

    // Another process has another one.
    uint64_t id() const {
        return begun_ms_;
    }
    // The number of the sample that comes next, counted from 0.
    uint64_t next() const {
        return taken_;
    }
    // The oldest that is kept.
    uint64_t first() const {
        return taken_ - samples_.size();
    }
    // REQUIRES: first() <= number < next().
    const Sample& sample(uint64_t number) const {
        return samples_[number % kSamplesMax];
    }
    // In the order of their beginning.
    const std::deque<Event>& events() const {
        return events_;
    }
    size_t bytes() const;

private:
    using Counts = std::array<uint64_t, Histogram::kBuckets>;
    enum class Lasting : uint8_t { No, Yes };
    // What growth is told from.
    struct Before {
        std::array<uint64_t, 7> counters{};
        Counts request{};
        Counts own{};
        Counts valkey{};
        Counts queue{};
    };

    static Before read(const Metrics& metrics);
    void take(uint64_t now_ms, const Metrics& metrics);
    void add(size_t row, std::string_view words, uint64_t count, uint64_t now_ms, Lasting lasting);
    void end(HistoryEvent event, uint64_t now_ms);
    Event* find(size_t row, std::string_view words, uint64_t now_ms, Lasting lasting);

    uint64_t begun_ms_;
    std::vector<Sample> samples_;  // a ring; number % kSamplesMax is the place
    std::deque<Event> events_;
    uint64_t taken_ = 0;
    uint64_t taken_ms_ = 0;
    Before before_;
    std::vector<uint64_t> watched_;  // the counters of the table, as they were seen last
    bool has_been_ready_ = false;
    bool was_not_ready_ = false;  // in this step, after it had been
    bool was_degraded_ = false;
    std::string early_problem_;  // before it was ready for the first time; noted if it lasts
};

}  // namespace nearkey
