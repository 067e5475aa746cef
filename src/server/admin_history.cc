// /history: columns of numbers, written by hand, since a JSON value for each of some ten thousand
// would hold the event loop up.
#include "nearkey/base/wall_clock.h"
#include "nearkey/loop/loop.h"
#include "nearkey/server/admin_page_functions.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;
using Text = fmt::memory_buffer;

// With a decimal below 10, where one is needed.
void append_number(float value, Text& text) {
    if (std::isnan(value)) {
        fmt::format_to(std::back_inserter(text), "null");
    } else if (value >= 10 || value == std::floor(value)) {
        fmt::format_to(std::back_inserter(text), "{}", std::llround(value));
    } else {
        fmt::format_to(std::back_inserter(text), "{:.1f}", value);
    }
}

template <class Append>
void append_column(std::string_view name, uint64_t count, Append append, Text& text) {
    fmt::format_to(std::back_inserter(text), "\"{}\":[", name);
    for (uint64_t i = 0; i < count; ++i) {
        if (i > 0) text.push_back(',');
        append(i);
    }
    text.push_back(']');
}

Json event_json(const History::Event& event, int64_t epoch_ms) {
    Json json = {
        {"kind", event.kind()}, {"time_ms", epoch_ms + static_cast<int64_t>(event.begin_ms)},
        {"until_ms", nullptr},  {"count", event.count},
        {"what", event.words},  {"advice", event.advice()}};
    if (!event.is_open) json["until_ms"] = epoch_ms + static_cast<int64_t>(event.end_ms);
    return json;
}

}  // namespace

AdminAnswer history_page(AdminSource& source, const AdminRequest& request) {
    uint64_t after = 0;
    if (!request.read_number("after", UINT64_MAX, after)) {
        return admin_error(400, "after is the number of a sample, \"next\" of an earlier answer");
    }
    const History& history = source.history();
    const uint64_t now_ms = Loop::boot_ms();
    // Each time as the clock of today has it, which may have been set since.
    const int64_t epoch_ms = wall_clock_ms() - static_cast<int64_t>(now_ms);
    // A number that we have not given yet is another process's.
    const uint64_t begin =
        after > history.next() ? history.first() : std::max(after, history.first());
    const uint64_t count = history.next() - begin;
    constexpr uint64_t kWindowMs = History::kStepMs * History::kSamplesMax;
    Text text;
    fmt::format_to(std::back_inserter(text),
                   R"({{"id":"{:x}","step_ms":{},"window_ms":{},"now_ms":{},"first":{},"next":{},)"
                   R"("samples":{{)",
                   history.id(), History::kStepMs, kWindowMs,
                   epoch_ms + static_cast<int64_t>(now_ms), begin, history.next());
    append_column(
        "time_ms", count,
        [&](uint64_t i) {
            const auto at_ms = static_cast<int64_t>(history.sample(begin + i).at_ms);
            fmt::format_to(std::back_inserter(text), "{}", epoch_ms + at_ms);
        },
        text);
    for (size_t figure = 0; figure < History::kFigures.size(); ++figure) {
        text.push_back(',');
        append_column(
            History::kFigures[figure], count,
            [&](uint64_t i) { append_number(history.sample(begin + i).values[figure], text); },
            text);
    }
    Json events = Json::array();
    for (const History::Event& event : history.events()) {
        if (event.is_open || event.end_ms + kWindowMs > now_ms) {
            events.push_back(event_json(event, epoch_ms));
        }
    }
    const auto replace = Json::error_handler_t::replace;
    return {200, "application/json",
            fmt::to_string(text) + "},\"events\":" + events.dump(-1, ' ', false, replace) + "}\n"};
}

}  // namespace nearkey
