// What the admin pages have in common: their answers are JSON. Private to server/.
// Bytes that are not UTF-8 are replaced: no exception may leave libmicrohttpd's callback.
#pragma once

#include "nearkey/server/admin_pages.h"

#include <nlohmann/json_fwd.hpp>

namespace nearkey {

AdminAnswer json_answer(unsigned status, const nlohmann::ordered_json& json);

}  // namespace nearkey
