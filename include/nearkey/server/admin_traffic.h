// /hotkeys and /slowlog: which keys are read most, and which requests took long, as JSON.
// Rows of admin_routes(). No key's name is in them unless hotkeys.show_names asks for it.
#pragma once

#include "nearkey/server/admin_pages.h"

namespace nearkey {

// {"names_shown": false, "window_seconds": 10, "hits": [{"key": "9f...", "per_second": ...,
// "count":
// ..., "error": ...}, ...], "misses": [...]}, the hottest first, ?count=20 of each.
AdminAnswer hot_keys_page(AdminSource& source, const AdminRequest& request);
// {"threshold_us": 10000, "entries": [{"id": ..., "time_ms": ..., "session": ..., "request": ...,
// "command": ..., "key": ..., "route": ..., "failed": ..., "queue_us": ..., "upstream_us": ...,
// "write_us": ..., "total_us": ...}, ...]}, the newest first.
AdminAnswer slow_log_page(AdminSource& source, const AdminRequest& request);

}  // namespace nearkey
