#include "nearkey/server/metrics_text.h"

namespace nearkey {

std::string prometheus_text(const Metrics& metrics) {
    std::string text;
    for (const MetricRow& row : metric_rows()) {
        text.append("# HELP ").append(row.name).append(" ").append(row.help);
        text.append("\n# TYPE ").append(row.name);
        text.append(row.type == MetricType::Counter ? " counter\n" : " gauge\n");
        text.append(row.name).append(" ").append(std::to_string(metrics.*row.field)).append("\n");
    }
    return text;
}

std::string stats_text(const Metrics& metrics) {
    std::string text;
    for (const MetricRow& row : metric_rows()) {
        text.append(text.empty() ? "{\"" : ",\"").append(row.name).append("\":");
        text.append(std::to_string(metrics.*row.field));
    }
    return text + "}\n";
}

}  // namespace nearkey
