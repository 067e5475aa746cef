// The functions of the admin server's pages, rows of admin_routes(), and what their answers have in
// common: they are JSON. Private to server/.
// Bytes that are not UTF-8 are replaced: no exception may leave libmicrohttpd's callback. No key's
// name is in an answer unless hotkeys.show_names asks for it. One answer has a bounded number of
// rows, so that ten thousand clients are many short answers and not one long pause of the loop.
#pragma once

#include "nearkey/server/admin_pages.h"

#include <nlohmann/json_fwd.hpp>

#include <string_view>

namespace nearkey {

AdminAnswer json_answer(unsigned status, const nlohmann::ordered_json& json);

// The status page for people: src/server/status_page.html, of which the build makes a source
// (scripts/embed-page).
// All of it: style and script are in it, and the policy lets a browser load nothing else.
extern const std::string_view kStatusPage;
extern const std::string_view kStatusPagePolicy;

// {"total": 3, "next": null, "clients": [{"session": 1, "pid": ..., "unit": ..., "commands": ...,
// ...}, ...]}; ?limit=100 of them, those after session ?after=0. With more, "next" is the next
// "after".
AdminAnswer clients_page(AdminSource& source, const AdminRequest& request);
// {"total": 2, "connections": [{"kind": "shared", "state": "ready", ...}, ...]}, ?limit=100 of
// them.
AdminAnswer connections_page(AdminSource& source, const AdminRequest& request);

// {"total": 3, "nodes": [{"id": ..., "address": ..., "state": "ready", "slots": 5461, ...}, ...]},
// ?limit=100 of them; none where the upstream is one server.
AdminAnswer nodes_page(AdminSource& source, const AdminRequest& request);

// {"step_ms": 5000, "window_ms": 3600000, "now_ms": ..., "first": 0, "next": 720,
//  "samples": {"time_ms": [...], "commands_per_second": [...], ...},
//  "events": [{"kind": "not_ready", "time_ms": ..., "until_ms": ..., "count": 1, "what": ...,
//  "advice": ...}, ...]}: the last hour, the oldest first; null where there was nothing to tell of,
// and in until_ms of what has not ended. ?after=N: samples from that number on, "next" of an
// earlier answer.
AdminAnswer history_page(AdminSource& source, const AdminRequest& request);

// {"names_shown": false, "window_seconds": 10,
//  "hits": [{"key": "9f...", "per_second": ..., "count": ..., "error": ...}, ...],
//  "misses": [...]}, the hottest first, ?count=20 of each.
AdminAnswer hot_keys_page(AdminSource& source, const AdminRequest& request);
// {"threshold_us": 10000, "entries": [{"id": ..., "time_ms": ..., "session": ..., "request": ...,
// "command": ..., "key": ..., "route": ..., "failed": ..., "queue_us": ..., "upstream_us": ...,
// "write_us": ..., "total_us": ...}, ...]}, the newest first.
AdminAnswer slow_log_page(AdminSource& source, const AdminRequest& request);

// The configuration in force as TOML, secrets redacted: what `nearkey check` prints.
AdminAnswer config_page(AdminSource& source, const AdminRequest& request);
// {"level": "info"}.
AdminAnswer log_level_page(AdminSource& source, const AdminRequest& request);
// POST ?level=debug: until the next reload, or the end. Answers as the former does.
AdminAnswer set_log_level(AdminSource& source, const AdminRequest& request);
// POST: the near cache is empty then. {"dropped": 12}, replies; 409 if it is switched off.
AdminAnswer clear_cache(AdminSource& source, const AdminRequest& request);

// /reload and /upgrade: ask for either, and show the outcome. Each page tells one AdminChange:
// {"state": "done", "number": 3, "pid": 4711, "reason": "", "changes": [...]}; state is "none",
// "under way", "done" or "refused". A new pid says that an upgrade was done.
AdminAnswer reload_page(AdminSource& source, const AdminRequest& request);
// POST: 200 done; 202 the new upstream is to answer first; 422 refused as a whole.
AdminAnswer ask_reload(AdminSource& source, const AdminRequest& request);

AdminAnswer upgrade_page(AdminSource& source, const AdminRequest& request);
// POST: 202 a new nearkey gets ready; 409 it can't be now.
AdminAnswer ask_upgrade(AdminSource& source, const AdminRequest& request);

}  // namespace nearkey
