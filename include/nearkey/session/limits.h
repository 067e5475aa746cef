// The limits of one client, and of all together: the table [limits] of the configuration. Each
// limit has a counter in base/metrics.h that tells when it was reached.
#pragma once

#include <cstdint>

namespace nearkey {

// Limits that a [[listener]] may set for its own clients.
struct ClientLimits {
    uint64_t clients_max = 10000;
    uint64_t in_flight_per_client_max = 1024;
    uint64_t commands_per_turn_max = 256;
    uint64_t output_per_client_high_water = uint64_t{1} << 20;
    uint64_t output_per_client_max = uint64_t{1} << 30;
    uint64_t input_per_client_max = uint64_t{1} << 30;
};

struct LimitOptions : ClientLimits {
    uint64_t bulk_max = uint64_t{512} << 20;
    uint64_t memory_max = uint64_t{4} << 30;
};

}  // namespace nearkey
