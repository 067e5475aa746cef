// Measures where the time of requests goes: in Valkey, in queues, in nearkey.
// Owned by the node; connections and sessions tell it of answers, and when the turn of the loop is
// over it counts them all at once. The one rule: no clock is read for a request. The loop reads it
// three times a turn, and all events of a turn count as at those times:
//
//   began ── replies read, commands run ── sent ── replies written to clients ── ended
//
// Requests of one turn have the same times, so they are counted together: a request costs one
// comparison and one addition.
#pragma once

#include "nearkey/base/command_counts.h"
#include "nearkey/base/histogram.h"
#include "nearkey/loop/loop.h"

#include <array>
#include <cstdint>

namespace nearkey {

// The counted times of a request, and their names. By default it is our own, and not counted.
struct RequestTiming {
    static constexpr uint8_t kUncounted = UINT8_MAX;

    static constexpr uint8_t series_of(CommandFamily family, RequestOutcome outcome) {
        return static_cast<uint8_t>(static_cast<size_t>(family) * kOutcomeNames.size() +
                                    static_cast<size_t>(outcome));
    }

    uint64_t key_hash = 0;            // for the slow log; 0: it has no key
    CommandCount* command = nullptr;  // for the slow log and errors; null: a request of our own
    uint32_t start_us = 0;            // the turn in which the command was taken up
    uint32_t sent_us = 0;             // the turn in which it was sent
    uint8_t series = kUncounted;
};

class Latency final : public TurnWatch {
public:
    // Both outlive it.
    Latency(Loop& loop, Histograms& histograms);
    ~Latency();
    Latency(const Latency&) = delete;
    Latency& operator=(const Latency&) = delete;

    // A command that was answered here, at once.
    void note_answer(uint8_t series) {
        if (answers_[series]++ == 0) answered_[answered_count_++] = series;
    }
    // A reply is complete. REQUIRES: it is counted.
    void note_reply(const RequestTiming& timing) {
        Batch& last = batches_[batch_count_ - 1];
        const bool is_same = last.start_us == timing.start_us && last.sent_us == timing.sent_us &&
                             last.series == timing.series;
        if (is_same) {
            ++last.count;
        } else {
            begin_batch(timing);
        }
    }
    // No reply will come, or the answer had to wait for another client's. REQUIRES: it is counted.
    void note_end(const RequestTiming& timing, RequestOutcome outcome);

    // Requests that take longer are slow. UINT32_MAX: none is.
    void set_slow_us(uint32_t slow_us) { slow_us_ = slow_us; }
    uint32_t slow_us() const { return slow_us_; }
    bool is_slow(const RequestTiming& timing) const {
        return loop_.turn_us() - timing.start_us >= slow_us_;
    }
    uint32_t turn_us() const { return loop_.turn_us(); }
    // The time until it was sent. REQUIRES: it was.
    uint32_t queue_us(const RequestTiming& timing) const {
        return timing.sent_us - timing.start_us;
    }
    // The time from its write until this turn.
    uint32_t upstream_us(const RequestTiming& timing) const;

private:
    static constexpr size_t kSeries = kFamilyNames.size() * kOutcomeNames.size();
    static constexpr size_t kBatchesMax = 128;  // in a turn; more are counted before its end
    static constexpr size_t kTurnsKnown = 256;  // a power of two

    // Requests alike in all that is counted.
    struct Batch {
        uint32_t start_us;
        uint32_t sent_us;
        uint32_t count;
        uint8_t series;
    };
    struct Sent {
        uint32_t turn_us;
        uint32_t sent_us;
    };

    // TurnWatch
    void on_turn(const Turn& turn) override;

    void begin_batch(const RequestTiming& timing);
    void count_batches(const Turn& turn);
    Sent& sent(uint32_t turn_us) { return turns_[turn_us * 0x9e3779b1U >> 24]; }
    uint32_t when_sent(uint32_t turn_us) const;
    Histogram& request(uint8_t series) {
        return histograms_.request[series / kOutcomeNames.size()][series % kOutcomeNames.size()];
    }

    Loop& loop_;
    Histograms& histograms_;
    uint32_t slow_us_ = UINT32_MAX;
    std::array<uint32_t, kSeries> answers_{};
    std::array<uint8_t, kSeries> answered_;  // which of them are not 0
    size_t answered_count_ = 0;
    std::array<Batch, kBatchesMax> batches_;  // the first is none
    size_t batch_count_ = 1;
    std::array<Sent, kTurnsKnown> turns_{};
};

}  // namespace nearkey
