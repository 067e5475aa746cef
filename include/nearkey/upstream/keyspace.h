// What INFO keyspace says of fields that expire by themselves (Valkey 9; Redis 7.4 has them too).
// Of such a hash PTTL says nothing, and the server reclaims a field some time after it has expired.
#pragma once

#include <string_view>

namespace nearkey {

// Whether any key has such fields, or the server does not say so. `info` may hold other sections.
// REQUIRES: the server knows HPEXPIRE.
[[nodiscard]] bool has_expiring_fields(std::string_view info);

}  // namespace nearkey
