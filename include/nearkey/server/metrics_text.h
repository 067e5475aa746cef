// All metrics as text, from the table in base/metrics.h: for Prometheus, as OpenMetrics, as JSON.
// Our help texts and label values have nothing to escape; a unit test sees to it.
#pragma once

#include "nearkey/base/metrics.h"

#include <string>
#include <string_view>

namespace nearkey {

inline constexpr const char* kPrometheusType = "text/plain; version=0.0.4; charset=utf-8";

// The text exposition format, version 0.0.4.
std::string prometheus_text(const Metrics& metrics);
// One flat object with every number: {"nearkey_clients": 3, ...}.
std::string stats_text(const Metrics& metrics);

}  // namespace nearkey
