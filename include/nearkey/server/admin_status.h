// The status page for people, at /, and what it asks for besides the pages of admin_pages.h.
// The page is src/server/status_page.html; the build makes a source of it (scripts/embed-page).
#pragma once

#include "nearkey/server/admin_pages.h"

#include <string_view>

namespace nearkey {

// The whole page: style and script are in it, and the policy lets a browser load nothing else.
extern const std::string_view kStatusPage;
extern const std::string_view kStatusPagePolicy;

AdminAnswer status_page(AdminSource& source, const AdminRequest& request);

// /status: version, state, reason and ages. 200 also when not ready, unlike /readyz: a browser
// would note each 503 as an error of the page.
AdminAnswer status_json(AdminSource& source, const AdminRequest& request);

}  // namespace nearkey
