#include "nearkey/base/metrics.h"

namespace nearkey {

std::span<const MetricRow> metric_rows() {
#define NEARKEY_METRIC_ROW(name, type, help) \
    {"nearkey_" #name, MetricType::type, help, &Metrics::name},
    static constexpr MetricRow kRows[] = {NEARKEY_METRICS(NEARKEY_METRIC_ROW)};
#undef NEARKEY_METRIC_ROW
    return kRows;
}

}  // namespace nearkey
