// docs/metrics.md is made of the table in base/metrics.h, and equal to it.
// NEARKEY_WRITE_DOCS=1 build/nearkey_unit_tests -tc='metrics docs*' writes it anew.
#include "nearkey/base/metrics.h"

#include "../generated_file.h"

#include <doctest/doctest.h>

namespace nearkey::metrics_docs_test {
namespace {

constexpr const char* kPath = "docs/metrics.md";

constexpr const char* kBegin = R"(# Metrics

Made of the table in `include/nearkey/base/metrics.h`; `tests/unit/server/metrics_docs_test.cc`
says how, and that it is so. `/metrics` is for Prometheus, and OpenMetrics if `Accept` asks for it.
`/stats` and `NEARKEY STATS` have the same numbers as one flat list: each row by the name in the
last column, each family of counters also as its sum, what is told by command as Prometheus has it:
`nearkey_commands_total{command="get",route="local"}`. A label has the values that stand here and no
others; none ever shows a key, a value or a name that a client sent.

| metric | type | label | what it counts | in /stats |
| --- | --- | --- | --- | --- |
)";

constexpr const char* kHistogramsBegin = R"(
## Histograms
Bounds from 10 µs to 10 s: 1, 2 and 5 in each decade. A series with labels is there once it has
counted something. Commands that wait because they are told to (BLPOP, WAIT) are not counted; a
transaction that travels as one piece is one request.

| metric | labels | what it counts |
| --- | --- | --- |
)";

constexpr const char* kCommands = R"(
## Commands
`nearkey_commands_total` has the label `command` besides `route`: a command's name in the server's
own table, a sub-command's with its parent (`client|setname`), as `INFO commandstats` and
redis_exporter's `redis_commands_total{cmd}` have it. What the server does not know is `unknown`. A
series is there once its command was received. Every command of a client is counted once: hits of
the near cache are `local`, commands in a tunnel and each one of a transaction `forwarded`; a
command that runs in parts at several nodes is one. Hits in shared memory are not commands.

| metric | labels | what it counts |
| --- | --- | --- |
)";

constexpr const char* kErrors = R"(
`code` is the error's first word, if it is one of these: )";

constexpr const char* kErrorsEnd = R"(; what
a script or a module has called its error otherwise is `other`. Errors of nearkey's own count as the
server's do. Not counted are those inside of EXEC's reply and those that a tunnel passes on; those
to a transaction that travels as one piece count for `multi`. An error by which a node of a cluster
says that another one runs the command is counted only if the client reads it.
)";

constexpr const char* kEnd = R"(
## The program and its process
`nearkey_build_info{version}` is 1. `process_cpu_seconds_total`, `process_start_time_seconds`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds` and
`process_max_fds` are what Prometheus' client libraries have everywhere.
)";

template <size_t Size>
std::string listed(const std::array<std::string_view, Size>& values) {
    std::string text;
    for (const std::string_view value : values)
        text.append(text.empty() ? "`" : ", `").append(value).append("`");
    return text;
}

std::string metrics_markdown() {
    std::string text = kBegin;
    std::string_view family;
    for (const MetricRow& row : metric_rows()) {
        const bool is_first = row.family != family;
        family = row.family;
        text.append("| ").append(is_first ? "`" + std::string(row.family) + "`" : "");
        text.append(" | ").append(!is_first                         ? ""
                                  : row.type == MetricType::Counter ? "counter"
                                                                    : "gauge");
        const std::string by_command = field_by_command(row) == nullptr ? "" : "`command`, ";
        text.append(" | ").append(by_command);
        text.append(row.label.empty() ? "" : "`" + std::string(row.label) + "`");
        text.append(" | ").append(row.help).append(" | `").append(row.name).append("` |\n");
    }
    const CommandErrorsRow errors;
    text.append(kCommands).append("| `").append(errors.name).append("` | ").append(errors.labels);
    text.append(" | ").append(errors.help).append(" |\n");
    text.append(kErrors).append(listed(kErrorCodes)).append(kErrorsEnd);
    text += kHistogramsBegin;
    for (const HistogramRow& row : histogram_rows()) {
        text.append("| `").append(row.name).append("` | ").append(row.labels);
        text.append(" | ").append(row.help).append(" |\n");
    }
    text.append(
        "\n`family` is the first of the server's own categories (`ACL CAT`) that the command "
        "has: ");
    text.append(listed(kFamilyNames)).append(".\n\n`outcome` is one of ");
    text.append(listed(kOutcomeNames))
        .append(
            ": from the near cache; by Valkey, a read that the near\n"
            "cache could not answer; by Valkey, anything else; by nearkey itself; an error of "
            "nearkey's in "
            "place\nof Valkey's reply.\n");
    return text + kEnd;
}

TEST_CASE("metrics docs: docs/metrics.md is what the table says") {
    check_generated(kPath, metrics_markdown());
}

}  // namespace
}  // namespace nearkey::metrics_docs_test
