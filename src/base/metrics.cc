#include "nearkey/base/metrics.h"

#include "nearkey/base/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace nearkey {

namespace {

constexpr HistogramRow kHistograms[] = {
    {HistogramKind::Request, "nearkey_request_duration_seconds", "family, outcome",
     "from when a command was taken up until its reply was written to the client"},
    {HistogramKind::Upstream, "nearkey_upstream_duration_seconds", "family",
     "from when a request was written to Valkey until its reply was read"},
    {HistogramKind::Own, "nearkey_own_duration_seconds", "",
     "what forwarded requests took less the time in Valkey and in queues"},
    {HistogramKind::Queue, "nearkey_queue_duration_seconds", "",
     "of requests that had to wait for a connection: how long"},
    {HistogramKind::Turn, "nearkey_loop_turn_duration_seconds", "",
     "how long the event loop worked before it slept: so long others had to wait"},
};

std::string label(std::string_view name, std::string_view value) {
    std::string text(name);
    text.append("=\"").append(value).append("\"");
    return text;
}

// Microseconds and milliseconds as seconds, exactly and without a locale.
std::string in_seconds(uint64_t number, uint64_t per_second, size_t digits) {
    if (number % per_second == 0) return std::to_string(number / per_second);
    std::string text = fmt::format("{}.{:0{}}", number / per_second, number % per_second, digits);
    text.erase(text.find_last_not_of('0') + 1);
    return text;
}

void join(MetricType type, uint64_t value, Count& total) {
    switch (type) {
        case MetricType::Counter:
        case MetricType::Gauge:
            total += value;
            return;
        case MetricType::GaugeMs:
        case MetricType::GaugeMost:
            total.raise_to(value);
            return;
        case MetricType::GaugeLeast:
            total = std::min(uint64_t{total}, value);
            return;
    }
}

}  // namespace

Metrics MetricsGroup::total() const {
    NEARKEY_CHECK(!members_.empty());
    Metrics total = *members_.front();
    for (size_t i = 1; i < members_.size(); ++i) {
        for (const MetricRow& row : metric_rows())
            join(row.type, members_[i]->*row.field, total.*row.field);
        total.histograms.add(members_[i]->histograms);
        total.commands.add(members_[i]->commands);
    }
    total.commands_forwarded_total = total.commands.total(&CommandCount::forwarded);
    total.commands_answered_total = total.commands.total(&CommandCount::answered);
    return total;
}

uint64_t MetricsGroup::total(Count Metrics::*field) const {
    uint64_t sum = 0;
    for (const Metrics* metrics : members_)
        sum += metrics->*field;
    return sum;
}

std::span<const MetricRow> metric_rows() {
#define NEARKEY_METRIC_ROW(name, type, help) \
    {"nearkey_" #name, "nearkey_" #name, "", MetricType::type, help, &Metrics::name},
#define NEARKEY_LABELLED_ROW(name, family, label, type, help)                 \
    {std::string_view(label).empty() ? "nearkey_" #family : "nearkey_" #name, \
     "nearkey_" #family,                                                      \
     label,                                                                   \
     MetricType::type,                                                        \
     help,                                                                    \
     &Metrics::name},
    static constexpr MetricRow kRows[] = {
        NEARKEY_METRICS(NEARKEY_METRIC_ROW, NEARKEY_LABELLED_ROW)};
#undef NEARKEY_METRIC_ROW
#undef NEARKEY_LABELLED_ROW
    return kRows;
}

Count CommandCount::*field_by_command(const MetricRow& row) {
    if (row.field == &Metrics::commands_forwarded_total) return &CommandCount::forwarded;
    if (row.field == &Metrics::commands_answered_total) return &CommandCount::answered;
    return nullptr;
}

void for_each_command_error(const Metrics& metrics,
                            const std::function<void(const std::string&, uint64_t)>& visit) {
    metrics.commands.for_each([&](const CommandCount& row) {
        for (size_t code = 0; code < kErrorCodes.size(); ++code) {
            const uint64_t count = row.errors(code);
            // The family is there before the first error.
            if (count == 0 && (row.name() != "unknown" || code > 0)) continue;
            visit(label("command", row.name()) + "," + label("code", kErrorCodes[code]), count);
        }
    });
}

std::span<const HistogramRow> histogram_rows() {
    return kHistograms;
}

void for_each_histogram(const Metrics& metrics, const HistogramRow& row,
                        const std::function<void(std::string_view, const Histogram&)>& visit) {
    const Histograms& all = metrics.histograms;
    const auto visit_if_used = [&](const std::string& labels, const Histogram& histogram) {
        if (histogram.count() > 0) visit(labels, histogram);
    };
    switch (row.kind) {
        case HistogramKind::Request:
            for (size_t family = 0; family < kFamilyNames.size(); ++family) {
                for (size_t outcome = 0; outcome < kOutcomeNames.size(); ++outcome) {
                    visit_if_used(label("family", kFamilyNames[family]) + "," +
                                      label("outcome", kOutcomeNames[outcome]),
                                  all.request[family][outcome]);
                }
            }
            return;
        case HistogramKind::Upstream:
            for (size_t family = 0; family < kFamilyNames.size(); ++family)
                visit_if_used(label("family", kFamilyNames[family]), all.upstream[family]);
            return;
        case HistogramKind::Own:
            return visit("", all.own);
        case HistogramKind::Queue:
            return visit("", all.queue);
        case HistogramKind::Turn:
            return visit("", all.turn);
    }
}

std::string seconds_text(uint64_t us) {
    return in_seconds(us, 1'000'000, 6);
}

std::string printed(const MetricRow& row, const Metrics& metrics) {
    const uint64_t value = metrics.*row.field;
    return row.type == MetricType::GaugeMs ? in_seconds(value, 1000, 3) : std::to_string(value);
}

void for_each_stat(const Metrics& metrics,
                   const std::function<void(std::string_view, std::string_view)>& visit) {
    const auto rows = metric_rows();
    uint64_t sum = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
        visit(rows[i].name, printed(rows[i], metrics));
        sum += metrics.*rows[i].field;
        const bool is_last = i + 1 == rows.size() || rows[i + 1].family != rows[i].family;
        if (!is_last) continue;
        if (rows[i].type == MetricType::Counter && !rows[i].label.empty()) {
            visit(rows[i].family, std::to_string(sum));
        }
        sum = 0;
    }
    for (const HistogramRow& row : histogram_rows()) {
        uint64_t count = 0;
        uint64_t sum_us = 0;
        for_each_histogram(metrics, row, [&](std::string_view, const Histogram& histogram) {
            count += histogram.count();
            sum_us += histogram.sum_us();
        });
        const std::string name(row.name);
        visit(name + "_count", std::to_string(count));
        visit(name + "_sum", seconds_text(sum_us));
    }
    for (const MetricRow& row : rows) {
        Count CommandCount::*const field = field_by_command(row);
        if (field == nullptr) continue;
        metrics.commands.for_each([&](const CommandCount& command) {
            visit(
                fmt::format("{}{{{},{}}}", row.family, label("command", command.name()), row.label),
                std::to_string(command.*field));
        });
    }
    const std::string_view errors = CommandErrorsRow().name;
    for_each_command_error(metrics, [&](const std::string& labels, uint64_t count) {
        visit(fmt::format("{}{{{}}}", errors, labels), std::to_string(count));
    });
}

}  // namespace nearkey
