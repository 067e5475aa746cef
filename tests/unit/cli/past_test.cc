// The last hour in `nearkey top`: sparklines of what /history says.
#include "nearkey/cli/past.h"

#include "nearkey/cli/text.h"

#include <doctest/doctest.h>

#include <clocale>
#include <cmath>
#include <string>

namespace nearkey::past_test {
namespace {

using Json = nlohmann::ordered_json;

// So many samples, the last one now; all figures are `value`, but in the minute before the last.
Json page_of(int first, int count, double value, const char* id = "1") {
    constexpr int64_t kNow = 1'800'000'000'000;
    Json samples;
    for (const char* name : {"commands_per_second", "hits_per_second", "misses_per_second",
                             "failed_per_second", "request_p99_us", "near_cache_bytes"})
        samples[name] = Json(static_cast<size_t>(count), value);
    samples["ready"] = Json(static_cast<size_t>(count), 1);
    for (int i = 0; i < count; ++i)
        samples["time_ms"].push_back(kNow - (count - 1 - i) * 5000);
    return {{"id", id},           {"step_ms", 5000},        {"window_ms", 3'600'000},
            {"now_ms", kNow},     {"first", first},         {"next", first + count},
            {"samples", samples}, {"events", Json::array()}};
}

std::string text_of_lines(const Past& past, size_t columns) {
    std::string text;
    for (const ScreenLine& line : past.lines(columns))
        text += line.text + "\n";
    return text;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("sparkline: as high as its value of the top, a blank where nothing is known") {
    CHECK(sparkline({0, 1, 4, 8, NAN, 12}, 8) == "_.=# #");
    CHECK(sparkline({0, 0}, 0) == "__");
    REQUIRE(std::setlocale(LC_CTYPE, "C.UTF-8") != nullptr);
    CHECK(sparkline({0, 1, 4, 8, NAN, 12}, 8) == "▁▂▅█ █");
    CHECK(columns_of(sparkline({0, 1, 4, 8, NAN, 12}, 8)) == 6);
    std::setlocale(LC_CTYPE, "C");
}

TEST_CASE("past: nothing is shown of a nearkey that keeps no history") {
    CHECK(Past().lines(80).empty());
    Past odd;
    odd.add({{"next", "x"}, {"samples", {{"time_ms", 7}, {"ready", "y"}}}});
    CHECK(odd.lines(80).empty());
}

TEST_CASE("past: an hour in as many places as there are, the newest last") {
    Past past;
    past.add(page_of(0, 720, 100));
    const std::string text = text_of_lines(past, 100);
    CHECK(text.starts_with("last hour\n"));
    CHECK(contains(text, "  commands  " + std::string(60, '#') + "  max 100/s\n"));
    CHECK(contains(text, std::string(60, '=') + "  of 100 %\n"));
    CHECK(contains(text, "max 100 us\n"));
    CHECK(!contains(text, "not ready"));
    for (const size_t columns : {size_t{0}, size_t{30}, size_t{50}, size_t{80}})
        for (const ScreenLine& line : past.lines(columns))
            CHECK(columns_of(line.text) <= std::max(columns, size_t{38}));
}

TEST_CASE("past: what comes is added, an hour is kept, and another process begins anew") {
    Past past;
    past.add(page_of(0, 720, 100));
    past.add(page_of(720, 1, 400));
    const std::string text = text_of_lines(past, 100);
    CHECK(contains(text, std::string(50, ':') + std::string(1, ':')));
    CHECK(contains(text, "#  max 400/s\n"));
    // What it has was asked for behind a number of the former one.
    past.add(page_of(721, 0, 7, "2"));
    CHECK(text_of_lines(past, 100).empty());
    past.add(page_of(0, 12, 7, "2"));
    const std::string young = text_of_lines(past, 100);
    CHECK(young.starts_with("last 5 min\n"));
    CHECK(contains(young, std::string(48, ' ') + std::string(12, '#') + "  max 7/s\n"));
    Past half;
    half.add(page_of(0, 360, 7));
    CHECK(text_of_lines(half, 100).starts_with("last 30 min\n"));
}

TEST_CASE("past: a clock that is set between two answers moves nothing") {
    Past past;
    past.add(page_of(0, 720, 100));
    Json page = page_of(720, 1, 100);
    page["now_ms"] = int64_t{page["now_ms"]} - 3'000'000;
    page["samples"]["time_ms"][0] = page["now_ms"];
    past.add(page);
    CHECK(contains(text_of_lines(past, 100), std::string(60, '#') + "  max 100/s\n"));
    page["samples"]["time_ms"][0] = 1e308;
    page["next"] = 722;
    past.add(page);
    CHECK(contains(text_of_lines(past, 100), std::string(60, '#') + "  max 100/s\n"));
}

TEST_CASE("past: a minute that was not ready, and the last events") {
    Json page = page_of(0, 720, 1);
    page["samples"]["ready"][360] = 0;
    page["samples"]["request_p99_us"][360] = nullptr;
    const int64_t now_ms = page["now_ms"];
    page["events"] = {
        {{"kind", "reloaded"}, {"time_ms", now_ms - 90'000}, {"count", 1}, {"what", "x"}},
        {{"kind", "not_ready"}, {"time_ms", now_ms - 30'000}, {"count", 2}, {"what", "a\x1b[2Jb"}}};
    Past past;
    past.add(page);
    const std::string text = text_of_lines(past, 100);
    CHECK(contains(text, "  not ready " + std::string(30, '_') + "#" + std::string(29, '_')));
    CHECK(contains(text, "  30.0 s    ago: not ready (2), a?[2Jb\n  1m 30s    ago: reloaded, x\n"));
}

}  // namespace
}  // namespace nearkey::past_test
