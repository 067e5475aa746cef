#include "nearkey/server/admin_status.h"

#include <nlohmann/json.hpp>

#include <utility>

namespace nearkey {

AdminAnswer status_page(AdminSource& /*source*/, const AdminRequest& /*request*/) {
    return {200,
            "text/html; charset=utf-8",
            std::string(kStatusPage),
            {{"Content-Security-Policy", std::string(kStatusPagePolicy)},
             {"X-Content-Type-Options", "nosniff"},
             {"Referrer-Policy", "no-referrer"}}};
}

AdminAnswer status_json(AdminSource& source, const AdminRequest& /*request*/) {
    const AdminState now = source.admin_state();
    nlohmann::ordered_json pages = nlohmann::ordered_json::array();
    for (const AdminRoute& route : admin_routes()) {
        if (route.method == "GET") pages.push_back(route.path);
    }
    const nlohmann::ordered_json json = {{"version", NEARKEY_VERSION},
                                         {"state", now.state},
                                         {"reason", now.reason},
                                         {"since_seconds", now.since_seconds},
                                         {"uptime_seconds", source.uptime_seconds()},
                                         {"pages", std::move(pages)}};
    const auto replace = nlohmann::ordered_json::error_handler_t::replace;
    return {200, "application/json", json.dump(-1, ' ', false, replace) + '\n'};
}

}  // namespace nearkey
