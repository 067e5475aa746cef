// /clients and /connections: who is connected here, and what we are connected to, as JSON.
// Rows of admin_routes(). One answer has a bounded number of rows, so that ten thousand clients are
// many short answers and not one long pause of the loop.
#pragma once

#include "nearkey/server/admin_pages.h"

namespace nearkey {

// {"total": 3, "next": null, "clients": [{"session": 1, "pid": ..., "unit": ..., "commands": ...,
// ...}, ...]}; ?limit=100 of them, those after session ?after=0. With more, "next" is the next
// "after".
AdminAnswer clients_page(AdminSource& source, const AdminRequest& request);
// {"total": 2, "connections": [{"kind": "shared", "state": "ready", ...}, ...]}, ?limit=100 of
// them.
AdminAnswer connections_page(AdminSource& source, const AdminRequest& request);

}  // namespace nearkey
