// Where the time of requests goes, with turns of the loop whose times are given.
#include "nearkey/upstream/latency.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace nearkey::latency_test {
namespace {

constexpr uint8_t kGetMiss = RequestTiming::series_of(CommandFamily::String, RequestOutcome::Miss);

struct Rig {
    Loop loop;
    Histograms histograms;
    Latency latency{loop, histograms};
    TurnWatch& watch = latency;

    const Histogram& request(CommandFamily family, RequestOutcome outcome) const {
        return histograms.request[static_cast<size_t>(family)][static_cast<size_t>(outcome)];
    }
    const Histogram& upstream(CommandFamily family) const {
        return histograms.upstream[static_cast<size_t>(family)];
    }
};

RequestTiming timing(uint32_t start_us, uint32_t sent_us) {
    RequestTiming timing;
    timing.start_us = start_us;
    timing.sent_us = sent_us;
    timing.series = kGetMiss;
    return timing;
}

TEST_CASE("latency: a request's time is Valkey's part, nearkey's own, and the queue's") {
    Rig rig;
    // Taken up at 1000, written to Valkey at 1030; the reply was read at 1530 and left at 1550.
    rig.watch.on_turn({1000, 1030, 1040});
    rig.latency.note_reply(timing(1000, 1000));
    rig.watch.on_turn({1530, 1530, 1550});
    CHECK(rig.request(CommandFamily::String, RequestOutcome::Miss).sum_us() == 550);
    CHECK(rig.upstream(CommandFamily::String).sum_us() == 500);
    CHECK(rig.histograms.own.sum_us() == 50);
    CHECK(rig.histograms.queue.count() == 0);
    // The same, but it waited from 2000 to 7000 for its connection.
    rig.watch.on_turn({7000, 7030, 7040});
    rig.latency.note_reply(timing(2000, 7000));
    rig.watch.on_turn({7530, 7530, 7550});
    CHECK(rig.request(CommandFamily::String, RequestOutcome::Miss).sum_us() == 550 + 5550);
    CHECK(rig.upstream(CommandFamily::String).sum_us() == 1000);
    CHECK(rig.histograms.own.sum_us() == 100);
    CHECK(rig.histograms.queue.sum_us() == 5000);
}

TEST_CASE("latency: the clock may wrap, and a turn long ago be forgotten") {
    Rig rig;
    rig.watch.on_turn({UINT32_MAX - 99, UINT32_MAX - 89, UINT32_MAX - 79});
    rig.latency.note_reply(timing(UINT32_MAX - 99, UINT32_MAX - 99));
    rig.watch.on_turn({900, 900, 910});
    CHECK(rig.request(CommandFamily::String, RequestOutcome::Miss).sum_us() == 1010);
    CHECK(rig.upstream(CommandFamily::String).sum_us() == 990);
    for (uint32_t i = 1; i < 5000; ++i)
        rig.watch.on_turn({1000 + i * 10, 1000 + i * 10 + 3, 1000 + i * 10 + 5});
    rig.latency.note_reply(timing(900, 900));
    rig.watch.on_turn({100'900, 100'900, 100'905});
    CHECK(rig.upstream(CommandFamily::String).sum_us() == 990 + 100'000);
}

TEST_CASE("latency: what was answered here took as long as the turn") {
    Rig rig;
    const uint8_t hit = RequestTiming::series_of(CommandFamily::Hash, RequestOutcome::Hit);
    for (int i = 0; i < 5; ++i)
        rig.latency.note_answer(hit);
    rig.watch.on_turn({100, 100, 130});
    rig.watch.on_turn({200, 200, 290});  // nothing more
    const Histogram& hits = rig.request(CommandFamily::Hash, RequestOutcome::Hit);
    CHECK(hits.count() == 5);
    CHECK(hits.sum_us() == 150);
    CHECK(rig.histograms.turn.count() == 2);
    CHECK(rig.histograms.turn.sum_us() == 120);
}

TEST_CASE("latency: more kinds of requests in a turn than have room are counted all the same") {
    Rig rig;
    for (uint32_t i = 0; i < 1000; ++i)
        rig.latency.note_reply(timing(i, i));
    rig.watch.on_turn({2000, 2000, 2000});
    CHECK(rig.request(CommandFamily::String, RequestOutcome::Miss).count() == 1000);
    CHECK(rig.histograms.own.count() == 1000);
}

TEST_CASE("loop: a turn's times are those of its events, and somebody is told of them") {
    struct Watch final : TurnWatch {
        void on_turn(const Turn& turn) override { turns.push_back(turn); }
        std::vector<Turn> turns;
    } watch;
    Loop loop;
    loop.set_turn_watch(&watch);
    uint32_t seen_us = 0;
    Timer timer(loop, [&] {
        seen_us = loop.turn_us();
        const uint32_t begin = Loop::now_us();
        while (Loop::now_us() - begin < 2000) {
        }
    });
    timer.start_once(1);
    REQUIRE(run_until(loop, [&] { return seen_us != 0 && watch.turns.size() > 1; }));
    const auto turn = std::find_if(watch.turns.begin(), watch.turns.end(),
                                   [&](const Turn& one) { return one.began_us == seen_us; });
    REQUIRE(turn != watch.turns.end());
    CHECK(turn->ended_us - turn->began_us >= 2000);
    loop.set_turn_watch(nullptr);
}

}  // namespace
}  // namespace nearkey::latency_test
