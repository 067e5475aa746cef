// All metrics as text, from the table in base/metrics.h: for Prometheus, as OpenMetrics, as JSON.
// Our help texts and label values have nothing to escape; a unit test sees to it.
#pragma once

#include "nearkey/base/metrics.h"

#include <string>
#include <string_view>

namespace nearkey {

enum class MetricsFormat {
    Prometheus,   // the text exposition format, version 0.0.4
    OpenMetrics,  // version 1.0.0
};

// OpenMetrics if the header Accept names it.
MetricsFormat metrics_format(std::string_view accept);
const char* content_type(MetricsFormat format);
// All metrics, and those of the process.
std::string metrics_text(const Metrics& metrics, MetricsFormat format);
// One flat object with every number: {"nearkey_clients":3, ...}.
std::string stats_text(const Metrics& metrics);

}  // namespace nearkey
