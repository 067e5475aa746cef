#include "nearkey/server/history.h"

#include "fake_source.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <string>

namespace nearkey::history_test {
namespace {

struct Hour {
    Metrics first;
    Metrics second;  // of another event loop
    MetricsGroup all;
    History history{0};
    uint64_t now_ms = 0;

    Hour() {
        all.add(first);
        all.add(second);
        first.ready = second.ready = 1;
        history.note_health(true, "", "", 0);
    }
    // So many seconds, with a look in each.
    void pass(uint64_t seconds) {
        for (uint64_t i = 0; i < seconds; ++i)
            history.look(now_ms += 1000, all, "10.0.0.2:6379");
    }
    const History::Sample& last() { return history.sample(history.next() - 1); }
};

TEST_CASE("history: a sample each five seconds, of all event loops together") {
    Hour hour;
    hour.pass(4);
    CHECK(hour.history.next() == 0);
    hour.first.commands.of("get").forwarded = 30;
    hour.second.commands.of("get").answered = 20;
    hour.first.clients = 3;
    hour.second.clients = 4;
    hour.pass(1);
    REQUIRE(hour.history.next() == 1);
    CHECK(hour.last().at_ms == 5000);
    CHECK(hour.last()[Figure::Commands] == 10);
    CHECK(hour.last()[Figure::Forwarded] == 6);
    CHECK(hour.last()[Figure::Clients] == 7);
    hour.first.commands.of("get").forwarded += 5;
    hour.pass(5);
    CHECK(hour.last()[Figure::Commands] == 1);
}

TEST_CASE("history: a step that came late is told by its real length") {
    Hour hour;
    hour.first.near_cache_hits_total = 100;
    hour.history.look(20'000, hour.all, "");
    CHECK(hour.last()[Figure::Hits] == 5);
}

TEST_CASE("history: percentiles are of the requests of their step alone") {
    Hour hour;
    hour.first.histograms.request[0][0].add(900'000, 1000);
    hour.pass(5);
    CHECK(hour.last()[Figure::RequestP99] > 500'000);
    hour.second.histograms.request[1][2].add(150, 100);
    hour.pass(5);
    CHECK(hour.last()[Figure::RequestP50] == 150);
    CHECK(hour.last()[Figure::RequestP99] == doctest::Approx(199));
    hour.pass(5);
    CHECK(std::isnan(hour.last()[Figure::RequestP50]));
}

TEST_CASE("history: requests that waited for no connection count as no time in the queue") {
    Hour hour;
    hour.first.histograms.upstream[0].add(90, 1000);
    hour.first.histograms.queue.add(9'000, 20);
    hour.pass(5);
    CHECK(hour.last()[Figure::QueueP50] == 0);
    CHECK(hour.last()[Figure::QueueP99] > 5'000);
    CHECK(hour.last()[Figure::ValkeyP99] < 100);
}

TEST_CASE("history: a state between two samples is seen in the next") {
    Hour hour;
    hour.pass(6);
    hour.history.note_health(false, "gone", "", hour.now_ms);
    hour.history.note_health(true, "", "", hour.now_ms + 10);
    hour.history.note_health(true, "", "a node is away", hour.now_ms + 20);
    hour.history.note_health(true, "", "", hour.now_ms + 30);
    hour.pass(4);
    CHECK(hour.last()[Figure::Ready] == 0);
    CHECK(hour.last()[Figure::Degraded] == 1);
    hour.pass(5);
    CHECK(hour.last()[Figure::Ready] == 1);
    CHECK(hour.last()[Figure::Degraded] == 0);
}

TEST_CASE("history: not ready lasts from the first word of it until the end") {
    Hour hour;
    hour.pass(1);
    hour.history.note_health(false, "no answer", "", hour.now_ms);
    hour.pass(5);
    hour.history.note_health(false, "Connection refused", "", hour.now_ms);
    REQUIRE(hour.history.events().size() == 1);
    const History::Event& event = hour.history.events().front();
    CHECK(event.is_open);
    CHECK(event.words == "Connection refused");
    hour.history.note_health(true, "", "", hour.now_ms);
    CHECK(!event.is_open);
    CHECK(event.begin_ms == 1000);
    CHECK(event.end_ms == 6000);
    CHECK(event.count == 1);
    CHECK(event.kind() == "not_ready");
    CHECK(!event.advice().empty());
}

TEST_CASE("history: at the start not ready is an event only if it lasts") {
    Metrics metrics;
    MetricsGroup all;
    all.add(metrics);
    for (const bool lasts : {false, true}) {
        History history{0};
        history.note_health(false, "asking for its commands", "", 10);
        if (!lasts) history.note_health(true, "", "", 20);
        history.look(1000, all, "");
        CHECK(history.events().size() == (lasts ? 1 : 0));
        metrics.ready = lasts ? 0 : 1;
        history.look(5000, all, "");
        CHECK(history.sample(0)[Figure::Ready] == (lasts ? 0 : 1));
    }
}

TEST_CASE("history: what comes again within a minute is one event") {
    Hour hour;
    hour.first.near_cache_evictions_total = 10;
    hour.pass(1);
    hour.first.near_cache_evictions_total = 15;
    hour.pass(50);
    hour.second.near_cache_evictions_total = 2;
    hour.pass(1);
    REQUIRE(hour.history.events().size() == 1);
    CHECK(hour.history.events().front().count == 17);
    CHECK(hour.history.events().front().begin_ms == 1000);
    CHECK(hour.history.events().front().end_ms == 52'000);
    hour.pass(61);
    ++hour.first.near_cache_evictions_total;
    hour.pass(1);
    CHECK(hour.history.events().size() == 2);
}

TEST_CASE("history: a state that comes again is another event, unless no chart shows the end") {
    Hour hour;
    hour.history.note_health(true, "", "", hour.now_ms);
    const auto fail_for = [&hour](int seconds) {
        hour.history.note_health(false, "no answer", "", hour.now_ms);
        hour.pass(seconds);
        hour.history.note_health(true, "", "", hour.now_ms);
    };
    fail_for(10);
    hour.pass(2);
    fail_for(10);
    CHECK(hour.history.events().size() == 1);
    hour.pass(20);
    fail_for(10);
    CHECK(hour.history.events().size() == 2);
    hour.history.note(HistoryEvent::Refused, "one", hour.now_ms);
    hour.history.note(HistoryEvent::Refused, "one", hour.now_ms);
    hour.history.note(HistoryEvent::Refused, "another", hour.now_ms);
    REQUIRE(hour.history.events().size() == 4);
    CHECK(hour.history.events()[2].count == 2);
    CHECK(hour.history.events()[3].words == "another");
}

TEST_CASE("history: failovers, reloads, upgrades and closed clients are events") {
    Hour hour;
    ++hour.first.failovers_sentinel_total;
    ++hour.first.clients_closed_output_total;
    hour.pass(1);
    hour.history.note(HistoryEvent::Reloaded, "log.level: info -> debug", hour.now_ms);
    hour.history.note(HistoryEvent::Refused, "no such option", hour.now_ms);
    hour.history.note(HistoryEvent::Upgraded, "nearkey 2", hour.now_ms);
    std::string kinds;
    for (const History::Event& event : hour.history.events()) {
        kinds += std::string(event.kind()) + " ";
        CHECK(!event.words.empty());
        CHECK(!event.advice().empty());
    }
    CHECK(kinds == "failover client_closed reloaded reload_refused upgraded ");
    CHECK(hour.history.events().front().words ==
          "another primary is followed, named by Sentinels, 10.0.0.2:6379");
}

TEST_CASE("history: an hour is kept, and its memory has a bound") {
    Hour hour;
    const std::string words(5000, 'x');
    for (int i = 0; i < 200; ++i) {
        hour.history.note_health(false, words, words, hour.now_ms);
        hour.history.note_health(true, "", words, hour.now_ms);
        hour.history.note_health(true, "", "", hour.now_ms);
        hour.history.note(HistoryEvent::Reloaded, words, hour.now_ms);
        hour.pass(62);
    }
    CHECK(hour.history.next() - hour.history.first() == 720);
    CHECK(hour.last().at_ms - hour.history.sample(hour.history.first()).at_ms == 719 * 5000);
    CHECK(hour.history.events().size() == History::kEventsMax);
    CHECK(hour.history.bytes() <= History::kBytesMax);
    CHECK(hour.history.bytes() > History::kBytesMax / 2);
}

nlohmann::json answer(FakeSource& source, std::string after) {
    AdminRequest request;
    request.method = "GET";
    request.path = "/history";
    if (!after.empty()) request.parameters.emplace_back("after", after);
    const AdminAnswer answer = answer_admin(admin_routes(), source, request, AdminTransport::Unix);
    return nlohmann::json::parse(answer.body);
}

TEST_CASE("history: the page has columns of one length, and what came after a number") {
    FakeSource source;
    MetricsGroup all;
    all.add(source.counted);
    const uint64_t start_ms = Loop::boot_ms() - 15'000;
    source.hour = History(start_ms);
    source.counted.commands.of("get").answered = 7;
    for (uint64_t i = 1; i <= 3; ++i)
        source.hour.look(start_ms + i * 5000, all, "");
    source.hour.note(HistoryEvent::Reloaded, "a\x80z\"", start_ms + 15'000);
    nlohmann::json page = answer(source, "");
    CHECK(page["step_ms"] == 5000);
    CHECK(page["window_ms"] == 3'600'000);
    CHECK(page["next"] == 3);
    CHECK(page["samples"].size() == 1 + History::kFigures.size());
    for (const auto& column : page["samples"])
        CHECK(column.size() == 3);
    CHECK(page["samples"]["commands_per_second"][0] == 1.4);
    CHECK(page["samples"]["request_p99_us"][0].is_null());
    const int64_t age_ms =
        page["now_ms"].get<int64_t>() - page["samples"]["time_ms"][0].get<int64_t>();
    CHECK(age_ms >= 10'000);
    CHECK(age_ms < 60'000);
    REQUIRE(page["events"].size() == 1);
    CHECK(page["events"][0]["kind"] == "reloaded");
    CHECK(page["events"][0]["what"] == "a\xef\xbf\xbdz\"");
    page = answer(source, "2");
    CHECK(page["first"] == 2);
    CHECK(page["samples"]["ready"].size() == 1);
    CHECK(answer(source, "3")["samples"]["ready"].empty());
    // The number of a former process.
    CHECK(answer(source, "700")["samples"]["ready"].size() == 3);
    CHECK(answer(source, "x").contains("error"));
}

}  // namespace
}  // namespace nearkey::history_test
