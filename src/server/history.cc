#include "nearkey/server/history.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace nearkey {

namespace {

struct Kind {
    std::string_view name;
    std::string_view advice;
    Count Metrics::*counter = nullptr;  // null: it is noted by hand
    std::string_view words = {};        // of what was counted
};

constexpr std::string_view kFindReader =
    "Find the program with large buffers (nearkey clients), or raise the limit.";

// The first rows are those of HistoryEvent.
constexpr auto kKinds = std::to_array<Kind>({
    {"started", "Nothing, if it was meant; else the log says how the one before it ended."},
    {"upgraded", "Nothing: what was before is not in this history."},
    {"not_ready", "Look at Valkey and the way to it; once it answers, nearkey is ready by itself."},
    {"degraded", "Look at the node that is named; nearkey nodes lists all."},
    {"reloaded", "Nothing: compare what the charts show before and after."},
    {"reload_refused", "Correct the configuration (nearkey check) and reload again."},
    {"certificates_renewed", "Nothing: a new connection has proven them."},
    {"certificates_refused",
     "Put a key and a certificate there that belong together, and that Valkey takes."},
    {"failover", "Nothing here; the log of Valkey or of the Sentinels says why.",
     &Metrics::failovers_sentinel_total, "another primary is followed, named by Sentinels"},
    {"failover", "Nothing here; the log of Valkey says why.", &Metrics::failovers_demoted_total,
     "another primary is followed: the former one was demoted"},
    {"evictions", "Raise near_cache.memory if the hit ratio fell.",
     &Metrics::near_cache_evictions_total, "replies left the near cache for want of room"},
    {"memory_short", "Raise the memory limit of the unit, or lower near_cache.memory.",
     &Metrics::memory_sheds_total, "memory was short: the near cache was emptied"},
    {"client_closed", kFindReader, &Metrics::clients_closed_output_total,
     "clients closed by limits.output_per_client_max"},
    {"client_closed", kFindReader, &Metrics::clients_closed_input_total,
     "clients closed by limits.input_per_client_max"},
    {"client_closed", kFindReader, &Metrics::clients_closed_memory_total,
     "clients closed by limits.memory_max"},
    {"client_refused", "Find who opens so many (nearkey clients), or raise limits.clients_max.",
     &Metrics::clients_refused_full_total, "clients refused by limits.clients_max"},
    {"client_refused", "Find the program with large buffers, or raise limits.memory_max.",
     &Metrics::clients_refused_memory_total, "clients refused for want of memory"},
    {"queue_full", "Valkey is too slow, or away: look at its time in the chart of latency.",
     &Metrics::queue_full_total, "times the queue for Valkey was full"},
    {"access_refused", "Give nearkey the right user and password, or mend them in Valkey.",
     &Metrics::auth_failures_total, "Valkey refused nearkey's own credentials"},
    {"access_refused", "Run upstream.password_command by hand; the log says what it did.",
     &Metrics::password_command_failures_total, "upstream.password_command told no password"},
    {"upgrade_failed", "The former one goes on; the log says why, then upgrade again.",
     &Metrics::upgrade_failures_total, "an upgrade was given up"},
});

constexpr size_t row_of(HistoryEvent event) {
    return static_cast<size_t>(event);
}

constexpr float kNothing = NAN;

std::array<uint64_t, Histogram::kBuckets> growth(
    const std::array<uint64_t, Histogram::kBuckets>& now,
    const std::array<uint64_t, Histogram::kBuckets>& before) {
    std::array<uint64_t, Histogram::kBuckets> grown{};
    for (size_t i = 0; i < grown.size(); ++i)
        grown[i] = now[i] - std::min(now[i], before[i]);
    return grown;
}

template <class Counts>
uint64_t sum(const Counts& counts) {
    return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

// As Prometheus estimates it: between two bounds the durations lie evenly; above all it is the
// highest bound. `zeros` more took no time.
float quantile_us(const std::array<uint64_t, Histogram::kBuckets>& counts, uint64_t zeros,
                  double part) {
    const uint64_t all = sum(counts) + zeros;
    if (all == 0) return kNothing;
    const double wanted = part * static_cast<double>(all);
    auto below = static_cast<double>(zeros);
    if (wanted <= below) return 0;
    for (size_t i = 0; i < Histogram::kBounds.size(); ++i) {
        const auto here = static_cast<double>(counts[i]);
        const double low = i == 0 ? 0 : Histogram::kBounds[i - 1];
        if (here > 0 && below + here >= wanted) {
            return static_cast<float>(low +
                                      (Histogram::kBounds[i] - low) * (wanted - below) / here);
        }
        below += here;
    }
    return static_cast<float>(Histogram::kBounds.back());
}

void add_counts(const Histogram& histogram, std::array<uint64_t, Histogram::kBuckets>& all) {
    for (size_t i = 0; i < all.size(); ++i)
        all[i] += histogram.counts()[i];
}

}  // namespace

std::string_view History::Event::kind() const {
    return kKinds[row].name;
}

std::string_view History::Event::advice() const {
    return kKinds[row].advice;
}

History::History(uint64_t now_ms) : begun_ms_(now_ms), taken_ms_(now_ms), watched_(kKinds.size()) {
    samples_.reserve(kSamplesMax);
}

void History::look(uint64_t now_ms, const MetricsGroup& all, std::string_view server) {
    for (size_t i = 0; i < kKinds.size(); ++i) {
        const Kind& kind = kKinds[i];
        if (kind.counter == nullptr) continue;
        const uint64_t count = all.total(kind.counter);
        const uint64_t former = std::exchange(watched_[i], count);
        if (count <= former) continue;
        std::string words(kind.words);
        if (kind.name == "failover" && !server.empty()) words.append(", ").append(server);
        add(i, words, count - former, now_ms, Lasting::No);
    }
    if (!early_problem_.empty()) {
        add(row_of(HistoryEvent::NotReady), std::exchange(early_problem_, ""), 1, now_ms,
            Lasting::Yes);
    }
    // Late by less than half a second is not late: the timer is no clock.
    if (now_ms >= taken_ms_ + kStepMs - 500) take(now_ms, all.total());
}

History::Before History::read(const Metrics& metrics) {
    Before now;
    // In the order of the first figures.
    now.counters = {
        metrics.commands_answered_total + metrics.commands_forwarded_total,
        metrics.commands_forwarded_total,
        metrics.near_cache_hits_total,
        metrics.near_cache_misses_total,
        metrics.upstream_down_total + metrics.upstream_lost_total + metrics.upstream_timeout_total,
        metrics.commands_refused_total,
        metrics.near_cache_evictions_total};
    for (const auto& family : metrics.histograms.request) {
        for (const Histogram& histogram : family)
            add_counts(histogram, now.request);
    }
    for (const Histogram& histogram : metrics.histograms.upstream)
        add_counts(histogram, now.valkey);
    add_counts(metrics.histograms.own, now.own);
    add_counts(metrics.histograms.queue, now.queue);
    return now;
}

void History::take(uint64_t now_ms, const Metrics& metrics) {
    const Before now = read(metrics);
    Sample sample{.at_ms = now_ms};
    const auto set = [&sample](Figure figure, auto value) {
        sample.values[static_cast<size_t>(figure)] = static_cast<float>(value);
    };
    const double seconds = static_cast<double>(now_ms - taken_ms_) / 1000;
    for (size_t i = 0; i < now.counters.size(); ++i) {
        const uint64_t grown = now.counters[i] - std::min(now.counters[i], before_.counters[i]);
        set(static_cast<Figure>(i), static_cast<double>(grown) / seconds);
    }
    const auto set_latency = [&](Figure p50, Figure p99, const Counts& grown, uint64_t zeros) {
        set(p50, quantile_us(grown, zeros, 0.5));
        set(p99, quantile_us(grown, zeros, 0.99));
    };
    const Counts valkey = growth(now.valkey, before_.valkey);
    const Counts queue = growth(now.queue, before_.queue);
    set_latency(Figure::RequestP50, Figure::RequestP99, growth(now.request, before_.request), 0);
    set_latency(Figure::OwnP50, Figure::OwnP99, growth(now.own, before_.own), 0);
    set_latency(Figure::ValkeyP50, Figure::ValkeyP99, valkey, 0);
    // Requests that did not wait for a connection are not in that histogram.
    const uint64_t waited = sum(queue);
    set_latency(Figure::QueueP50, Figure::QueueP99, queue,
                sum(valkey) - std::min(sum(valkey), waited));
    set(Figure::Clients, uint64_t{metrics.clients});
    set(Figure::UpstreamConnections, uint64_t{metrics.upstream_connections});
    set(Figure::InFlight, uint64_t{metrics.in_flight});
    set(Figure::Queued, uint64_t{metrics.queued});
    set(Figure::CacheBytes, uint64_t{metrics.near_cache_bytes});
    set(Figure::ClientBytes, uint64_t{metrics.client_memory_bytes});
    const bool is_ready = metrics.ready != 0;
    const bool is_degraded = metrics.degraded != 0;
    set(Figure::Ready, is_ready && !was_not_ready_ ? 1 : 0);
    set(Figure::Degraded, is_degraded || was_degraded_ ? 1 : 0);
    was_not_ready_ = !is_ready;
    was_degraded_ = is_degraded;
    before_ = now;
    taken_ms_ = now_ms;
    if (samples_.size() < kSamplesMax) {
        samples_.push_back(sample);
    } else {
        samples_[taken_ % kSamplesMax] = sample;
    }
    ++taken_;
}

void History::note(HistoryEvent event, std::string_view words, uint64_t now_ms) {
    add(row_of(event), words, 1, now_ms, Lasting::No);
}

void History::note_health(bool is_ready, std::string_view reason, std::string_view degraded,
                          uint64_t now_ms) {
    early_problem_.clear();
    if (is_ready) {
        has_been_ready_ = true;
        end(HistoryEvent::NotReady, now_ms);
    } else if (has_been_ready_) {
        was_not_ready_ = true;
        add(row_of(HistoryEvent::NotReady), reason, 1, now_ms, Lasting::Yes);
    } else {
        early_problem_ = reason;
    }
    if (!is_ready || degraded.empty()) {
        end(HistoryEvent::Degraded, now_ms);
    } else {
        was_degraded_ = true;
        add(row_of(HistoryEvent::Degraded), degraded, 1, now_ms, Lasting::Yes);
    }
}

// --- events ---

// The event that goes on with these words; null: it is another one. A state that has ended and
// comes again is another one, unless the charts could not show what was between.
History::Event* History::find(size_t row, std::string_view words, uint64_t now_ms,
                              Lasting lasting) {
    const auto found = std::find_if(events_.rbegin(), events_.rend(),
                                    [&](const Event& e) { return e.row == row; });
    if (found == events_.rend()) return nullptr;
    const bool is_state = lasting == Lasting::Yes;
    const bool is_soon = now_ms <= found->end_ms + (is_state ? kStepMs : kSameWithinMs);
    const bool is_same = found->is_open || (is_soon && (is_state || found->words == words));
    return is_same ? &*found : nullptr;
}

void History::add(size_t row, std::string_view words, uint64_t count, uint64_t now_ms,
                  Lasting lasting) {
    words = words.substr(0, kWordsMax);
    Event* event = find(row, words, now_ms, lasting);
    if (event == nullptr) {
        if (events_.size() == kEventsMax) events_.pop_front();
        event = &events_.emplace_back(Event{row, now_ms});
    }
    // A lasting one whose words change goes on.
    if (!event->is_open) event->count += count;
    event->is_open = lasting == Lasting::Yes;
    event->end_ms = now_ms;
    event->words = words;
}

void History::end(HistoryEvent event, uint64_t now_ms) {
    for (Event& one : events_) {
        if (one.row != row_of(event) || !one.is_open) continue;
        one.is_open = false;
        one.end_ms = now_ms;
    }
}

size_t History::bytes() const {
    size_t bytes = samples_.capacity() * sizeof(Sample) + watched_.capacity() * sizeof(uint64_t);
    for (const Event& event : events_)
        bytes += sizeof(Event) + event.words.capacity() + 1;
    return bytes + early_problem_.capacity();
}

}  // namespace nearkey
