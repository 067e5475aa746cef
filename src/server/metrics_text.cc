#include "nearkey/server/metrics_text.h"

#include <unistd.h>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace nearkey {

namespace {

// The two formats differ in the name of a counter's family, in units and in the end.
class Text {
public:
    explicit Text(MetricsFormat format) : is_open_(format == MetricsFormat::OpenMetrics) {}

    void begin(std::string_view name, std::string_view type, std::string_view help) {
        std::string_view family = name;
        if (is_open_ && type == "counter") family.remove_suffix(std::string_view("_total").size());
        if (is_open_ && type == "info") family.remove_suffix(std::string_view("_info").size());
        if (!is_open_ && type == "info") type = "gauge";
        line({"# TYPE ", family, " ", type});
        if (is_open_ && family.ends_with("_seconds")) line({"# UNIT ", family, " seconds"});
        if (is_open_ && family.ends_with("_bytes")) line({"# UNIT ", family, " bytes"});
        line({"# HELP ", family, " ", help});
    }
    void sample(std::string_view name, std::string_view labels, std::string_view value) {
        if (labels.empty()) {
            line({name, " ", value});
        } else {
            line({name, "{", labels, "} ", value});
        }
    }
    void single(std::string_view name, std::string_view type, std::string_view help,
                std::string_view value) {
        begin(name, type, help);
        sample(name, "", value);
    }
    void histogram(std::string_view name, std::string_view labels, const Histogram& histogram) {
        const std::string bucket = std::string(name) + "_bucket";
        const std::string before = labels.empty() ? "" : std::string(labels) + ",";
        uint64_t below = 0;
        for (size_t i = 0; i < Histogram::kBuckets; ++i) {
            below += histogram.counts()[i];
            const bool is_last = i == Histogram::kBounds.size();
            const std::string bound = is_last ? "+Inf" : seconds_text(Histogram::kBounds[i]);
            sample(bucket, before + "le=\"" + bound + "\"", std::to_string(below));
        }
        sample(std::string(name) + "_sum", labels, seconds_text(histogram.sum_us()));
        sample(std::string(name) + "_count", labels, std::to_string(below));
    }
    std::string end() {
        if (is_open_) line({"# EOF"});
        return std::move(text_);
    }

private:
    void line(std::initializer_list<std::string_view> parts) {
        for (const std::string_view part : parts)
            text_ += part;
        text_ += '\n';
    }

    const bool is_open_;
    std::string text_;
};

std::string decimal(double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%.3f", value);
    return text;
}

// The fields of /proc/self/stat behind the program's name, which may hold blanks; [0] is the state.
std::array<uint64_t, 24> own_stat() {
    std::ifstream file("/proc/self/stat");
    std::string line;
    std::getline(file, line);
    std::istringstream fields(line.substr(line.rfind(')') + 1));
    std::array<uint64_t, 24> values{};
    std::string field;
    for (size_t i = 0; i < values.size() && fields >> field; ++i)
        values[i] = std::strtoull(field.c_str(), nullptr, 10);
    return values;
}

double boot_time() {
    timespec now{};
    timespec since_boot{};
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &since_boot);
    return static_cast<double>(now.tv_sec - since_boot.tv_sec) +
           static_cast<double>(now.tv_nsec - since_boot.tv_nsec) / 1e9;
}

uint64_t open_files() {
    std::error_code error;
    uint64_t count = 0;
    for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end;
         !error && entry != end; entry.increment(error)) {
        ++count;
    }
    return count;
}

// The metrics of the process, by the names of Prometheus' own client libraries. proc(5) counts the
// fields from 1, of which the first is [-2] here.
void append_process(Text& text) {
    const auto stat = own_stat();
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    text.single("process_cpu_seconds_total", "counter", "user and system time",
                decimal(static_cast<double>(stat[11] + stat[12]) / ticks));
    text.single("process_start_time_seconds", "gauge", "when the process started, since 1970",
                decimal(boot_time() + static_cast<double>(stat[19]) / ticks));
    text.single("process_resident_memory_bytes", "gauge", "resident memory",
                std::to_string(stat[21] * page));
    text.single("process_virtual_memory_bytes", "gauge", "virtual memory",
                std::to_string(stat[20]));
    text.single("process_open_fds", "gauge", "open file descriptors", std::to_string(open_files()));
    text.single("process_max_fds", "gauge", "file descriptors that may be open",
                std::to_string(sysconf(_SC_OPEN_MAX)));
}

}  // namespace

MetricsFormat metrics_format(std::string_view accept) {
    return accept.find("application/openmetrics-text") != std::string_view::npos
               ? MetricsFormat::OpenMetrics
               : MetricsFormat::Prometheus;
}

const char* content_type(MetricsFormat format) {
    return format == MetricsFormat::OpenMetrics
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}

std::string metrics_text(const Metrics& metrics, MetricsFormat format) {
    Text text(format);
    text.begin("nearkey_build_info", "info", "the version that runs");
    text.sample("nearkey_build_info", "version=\"" NEARKEY_VERSION "\"", "1");
    std::string_view family;
    for (const MetricRow& row : metric_rows()) {
        if (row.family != family) {
            text.begin(row.family, row.type == MetricType::Counter ? "counter" : "gauge", row.help);
        }
        family = row.family;
        Count CommandCount::*const field = field_by_command(row);
        if (field == nullptr) {
            text.sample(row.family, row.label, printed(row, metrics));
            continue;
        }
        metrics.commands.for_each([&](const CommandCount& command) {
            text.sample(row.family, "command=\"" + command.name() + "\"," + std::string(row.label),
                        std::to_string(command.*field));
        });
    }
    const CommandErrorsRow errors;
    text.begin(errors.name, "counter", errors.help);
    for_each_command_error(metrics, [&](const std::string& labels, uint64_t count) {
        text.sample(errors.name, labels, std::to_string(count));
    });
    for (const HistogramRow& row : histogram_rows()) {
        text.begin(row.name, "histogram", row.help);
        for_each_histogram(metrics, row, [&](std::string_view labels, const Histogram& histogram) {
            text.histogram(row.name, labels, histogram);
        });
    }
    append_process(text);
    return text.end();
}

std::string stats_text(const Metrics& metrics) {
    std::string text;
    for_each_stat(metrics, [&](std::string_view name, std::string_view value) {
        text.append(text.empty() ? "{\"" : ",\"");
        for (const char c : name)
            text.append(c == '"' ? "\\" : "").append(1, c);
        text.append("\":").append(value);
    });
    return text + "}\n";
}

}  // namespace nearkey
