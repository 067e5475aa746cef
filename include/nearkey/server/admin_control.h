// /config, and the pages that change something: /log-level and /cache/clear.
// Rows of admin_routes(). Each change is logged, with what was asked for.
#pragma once

#include "nearkey/server/admin_pages.h"

namespace nearkey {

// The configuration in force as TOML, secrets redacted: what `nearkey check` prints.
AdminAnswer config_page(AdminSource& source, const AdminRequest& request);
// {"level": "info"}.
AdminAnswer log_level_page(AdminSource& source, const AdminRequest& request);
// POST ?level=debug: until the next reload, or the end. Answers as the former does.
AdminAnswer set_log_level(AdminSource& source, const AdminRequest& request);
// POST: the near cache is empty then. {"dropped": 12}, replies; 409 if it is switched off.
AdminAnswer clear_cache(AdminSource& source, const AdminRequest& request);

}  // namespace nearkey
