#include "nearkey/cli/past.h"

#include "nearkey/cli/text.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace nearkey {

namespace {

constexpr size_t kMomentsMax = 720;
constexpr size_t kRange = 16;  // of the words behind a line
constexpr size_t kPlacesMax = 60;
constexpr size_t kPlacesMin = 10;
constexpr size_t kEventsShown = 3;
constexpr std::chrono::seconds kStep{5};

enum PastColumn : size_t { Commands, Hits, Misses, Failed, LatencyP99, Bytes, Ready };
constexpr std::array<const char*, 7> kNames = {"commands_per_second",
                                               "hits_per_second",
                                               "misses_per_second",
                                               "failed_per_second",
                                               "request_p99_us",
                                               "near_cache_bytes",
                                               "ready"};

double number_at(const nlohmann::ordered_json& list, size_t at) {
    if (!list.is_array() || at >= list.size() || !list[at].is_number()) return NAN;
    return list[at].get<double>();
}

nlohmann::ordered_json member(const nlohmann::ordered_json& object, const char* name) {
    const bool is_there = object.is_object() && object.contains(name);
    return is_there ? object.at(name) : nlohmann::ordered_json{};
}

// Moments in one place: reads of both, for their ratio; else the greatest, and the least readiness.
double joined(size_t column, double one, double other) {
    if (std::isnan(one)) return other;
    if (std::isnan(other)) return one;
    if (column == Hits || column == Misses) return one + other;
    return column == Ready ? std::min(one, other) : std::max(one, other);
}

double most(const std::vector<double>& values) {
    double most = NAN;
    for (const double value : values)
        most = joined(LatencyP99, most, value);
    return most;
}

ScreenLine line_of(std::string label, const std::vector<double>& values, double top,
                   const std::string& range) {
    label.resize(kTopLabel, ' ');
    return {label + sparkline(values, top) + (range.empty() ? "" : "  " + range)};
}

}  // namespace

std::string sparkline(const std::vector<double>& values, double top) {
    static constexpr std::array<const char*, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static constexpr std::array<const char*, 8> kPlain = {"_", ".", ":", "-", "=", "+", "*", "#"};
    const auto& marks = shown(kBlocks.back()) == kBlocks.back() ? kBlocks : kPlain;
    std::string line;
    for (const double value : values) {
        if (std::isnan(value)) {
            line += ' ';
            continue;
        }
        const double part = top > 0 ? std::clamp(value / top, 0.0, 1.0) : 0;
        line += marks[std::min(static_cast<size_t>(part * static_cast<double>(marks.size())),
                               marks.size() - 1)];
    }
    return line;
}

void Past::ask(const AdminTarget& target) {
    const auto now = std::chrono::steady_clock::now();
    if (asked_ && now < *asked_ + kStep) return;
    asked_ = now;
    const std::string path = "/history?after=" + std::to_string(std::llround(next_));
    const AdminReply reply = ask_admin(target, {"GET", path}, "samples");
    if (reply.is_good()) add(reply.page);
}

void Past::add(const nlohmann::ordered_json& page) {
    // Another process counts anew. What it had before `after` is asked for at once.
    const bool is_other = member(page, "id") != member(page_, "id");
    if (is_other) moments_.clear();
    if (is_other && next_ > 0) {
        next_ = 0;
        asked_.reset();
        page_ = {};
        return;
    }
    next_ = number_of(page, "next");
    page_ = page;
    // Its clock may be set between two answers: ours goes on.
    now_ms_ = std::chrono::duration<double, std::milli>(
                  std::chrono::steady_clock::now().time_since_epoch())
                  .count();
    const double ahead_ms = now_ms_ - number_of(page_, "now_ms");
    const nlohmann::ordered_json samples = std::exchange(page_["samples"], nullptr);
    const nlohmann::ordered_json times = member(samples, "time_ms");
    std::array<nlohmann::ordered_json, kColumns> columns;
    for (size_t i = 0; i < kColumns; ++i)
        columns[i] = member(samples, kNames[i]);
    for (size_t at = 0; times.is_array() && at < times.size(); ++at) {
        Moment& moment = moments_.emplace_back(Moment{number_at(times, at) + ahead_ms, {}});
        for (size_t i = 0; i < kColumns; ++i)
            moment.values[i] = number_at(columns[i], at);
        if (moments_.size() > kMomentsMax) moments_.pop_front();
    }
}

// The hour, or since it began; with a place for each sample it has no gaps.
double Past::window_ms(size_t places) const {
    const double step_ms = number_of(page_, "step_ms");
    const double age_ms = now_ms_ - moments_.front().time_ms + step_ms;
    const double least_ms = static_cast<double>(places) * step_ms;
    return std::max(std::min(std::max(age_ms, least_ms), number_of(page_, "window_ms")), 1.0);
}

// That time in so many places, the newest last.
std::vector<Past::Values> Past::merged(size_t places) const {
    Values nothing;
    nothing.fill(NAN);
    std::vector<Values> all(places, nothing);
    const double window = window_ms(places);
    for (const Moment& moment : moments_) {
        const double middle_ms = moment.time_ms - number_of(page_, "step_ms") / 2;
        const double part = 1 - (now_ms_ - middle_ms) / window;
        if (!(part >= 0 && part <= 1)) continue;
        const auto place =
            std::min(static_cast<size_t>(part * static_cast<double>(places)), places - 1);
        for (size_t i = 0; i < kColumns; ++i)
            all[place][i] = joined(i, all[place][i], moment.values[i]);
    }
    return all;
}

std::vector<ScreenLine> Past::lines(size_t columns) const {
    std::vector<ScreenLine> lines;
    if (moments_.empty()) return lines;
    const size_t room = columns - std::min(columns, kTopLabel + kRange);
    const size_t places = std::clamp(room, kPlacesMin, kPlacesMax);
    const std::vector<Values> all = merged(places);
    const auto take = [&all](auto value_of) {
        std::vector<double> values;
        for (const Values& each : all)
            values.push_back(value_of(each));
        return values;
    };
    const auto add = [&](const char* label, PastColumn column, auto text_of_value) {
        const std::vector<double> values = take([&](const Values& each) { return each[column]; });
        const double top = most(values);
        const std::string range = std::isnan(top) ? "-" : "max " + text_of_value(top);
        lines.push_back(line_of(label, values, top, range));
    };
    const double minutes = std::round(window_ms(places) / 60'000);
    lines.push_back({minutes >= 60 ? "last hour" : "last " + count_text(minutes) + " min", true});
    add("  commands", Commands, rate_text);
    const std::vector<double> ratios = take([](const Values& each) {
        const double reads = each[Hits] + each[Misses];
        return reads > 0 ? each[Hits] / reads : NAN;
    });
    lines.push_back(line_of("  hit ratio", ratios, 1, "of 100 %"));
    add("  p99", LatencyP99, [](double us) { return duration_text(us / 1e6); });
    add("  failed", Failed, rate_text);
    add("  near cache", Bytes, bytes_text);
    const std::vector<double> away = take([](const Values& each) { return 1 - each[Ready]; });
    if (most(away) > 0) lines.push_back(line_of("  not ready", away, 1, ""));
    add_events(lines);
    return lines;
}

// The last ones, the newest first.
void Past::add_events(std::vector<ScreenLine>& lines) const {
    const nlohmann::ordered_json& events = rows_of(page_, "events");
    const double now_ms = number_of(page_, "now_ms");
    for (size_t i = 0; i < std::min(events.size(), kEventsShown); ++i) {
        const nlohmann::ordered_json& event = events[events.size() - 1 - i];
        const double age_s = std::max(now_ms - number_of(event, "time_ms"), 0.0) / 1000;
        const double count = number_of(event, "count");
        std::string label = "  " + duration_text(age_s);
        label.resize(std::max(label.size() + 1, kTopLabel), ' ');
        std::string kind = text_of(event, "kind");
        std::replace(kind.begin(), kind.end(), '_', ' ');
        lines.push_back({label + "ago: " + kind +
                         (count > 1 ? " (" + count_text(count) + ")" : "") + ", " +
                         text_of(event, "what")});
    }
}

}  // namespace nearkey
