// /reload and /upgrade: to ask for either, and to hear what came of it.
// Rows of admin_routes(). Each page tells one AdminChange: {"state": "done", "number": 3, "pid":
// 4711, "reason": "", "changes": [...]}; state is "none", "under way", "done" or "refused". A new
// pid says that an upgrade was done.
#pragma once

#include "nearkey/server/admin_pages.h"

namespace nearkey {

AdminAnswer reload_page(AdminSource& source, const AdminRequest& request);
// POST: 200 done; 202 the new upstream is to answer first; 422 refused as a whole.
AdminAnswer ask_reload(AdminSource& source, const AdminRequest& request);

AdminAnswer upgrade_page(AdminSource& source, const AdminRequest& request);
// POST: 202 a new nearkey gets ready; 409 it can't be now.
AdminAnswer ask_upgrade(AdminSource& source, const AdminRequest& request);

}  // namespace nearkey
