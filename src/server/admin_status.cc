#include "nearkey/server/admin_status.h"

#include "nearkey/server/admin_json.h"

#include <nlohmann/json.hpp>

#include <utility>

namespace nearkey {

AdminAnswer status_page(AdminSource& /*source*/, const AdminRequest& /*request*/) {
    return {200,
            "text/html; charset=utf-8",
            std::string(kStatusPage),
            {{"Content-Security-Policy", std::string(kStatusPagePolicy)},
             {"Referrer-Policy", "no-referrer"}}};
}

AdminAnswer status_json(AdminSource& source, const AdminRequest& /*request*/) {
    const AdminState now = source.admin_state();
    nlohmann::ordered_json pages = nlohmann::ordered_json::array();
    for (const AdminRoute& route : admin_routes()) {
        if (route.method == "GET") pages.push_back(route.path);
    }
    return json_answer(200, {{"version", NEARKEY_VERSION},
                             {"state", now.state},
                             {"reason", now.reason},
                             {"since_seconds", now.since_seconds},
                             {"uptime_seconds", source.uptime_seconds()},
                             {"pages", std::move(pages)}});
}

}  // namespace nearkey
