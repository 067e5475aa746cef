#include "nearkey/upstream/latency.h"

#include <algorithm>

namespace nearkey {

Latency::Latency(Loop& loop, Histograms& histograms) : loop_(loop), histograms_(histograms) {
    batches_[0] = {0, 0, 0, RequestTiming::kUncounted};
    loop_.set_turn_watch(this);
}

Latency::~Latency() {
    loop_.set_turn_watch(nullptr);
}

void Latency::begin_batch(const RequestTiming& timing) {
    if (batch_count_ == kBatchesMax) {
        const uint32_t now = Loop::now_us();
        count_batches({loop_.turn_us(), now, now});
    }
    batches_[batch_count_++] = {timing.start_us, timing.sent_us, 1, timing.series};
}

void Latency::note_end(const RequestTiming& timing, RequestOutcome outcome) {
    const size_t family = timing.series / kOutcomeNames.size();
    histograms_.request[family][static_cast<size_t>(outcome)].add(loop_.turn_us() - timing.start_us,
                                                                  1);
}

// Requests of a turn left when that turn had been busy for a while. For a turn long ago that while
// is not known any more, and is nothing beside the time since.
uint32_t Latency::when_sent(uint32_t turn_us) const {
    const Sent& sent = turns_[turn_us * 0x9e3779b1U >> 24];
    return sent.turn_us == turn_us ? sent.sent_us : turn_us;
}

uint32_t Latency::upstream_us(const RequestTiming& timing) const {
    return loop_.turn_us() - when_sent(timing.sent_us);
}

void Latency::on_turn(const Turn& turn) {
    histograms_.turn.add(turn.ended_us - turn.began_us, 1);
    sent(turn.began_us) = {turn.began_us, turn.sent_us};
    for (size_t i = 0; i < answered_count_; ++i) {
        uint32_t& count = answers_[answered_[i]];
        request(answered_[i]).add(turn.ended_us - turn.began_us, count);
        count = 0;
    }
    answered_count_ = 0;
    if (batch_count_ > 1) count_batches(turn);
}

void Latency::count_batches(const Turn& turn) {
    for (size_t i = 1; i < batch_count_; ++i) {
        const Batch& batch = batches_[i];
        const uint32_t total = turn.ended_us - batch.start_us;
        const uint32_t queue = batch.sent_us - batch.start_us;
        // Sent and answered in one turn, which only a reply that nobody asked for can seem to be.
        const uint32_t since = turn.began_us - when_sent(batch.sent_us);
        const uint32_t upstream = since > total ? 0 : since;
        request(batch.series).add(total, batch.count);
        histograms_.upstream[batch.series / kOutcomeNames.size()].add(upstream, batch.count);
        histograms_.own.add(total - std::min(total, upstream + queue), batch.count);
        if (queue > 0) histograms_.queue.add(queue, batch.count);
    }
    batch_count_ = 1;
}

}  // namespace nearkey
