#include "nearkey/server/admin_pages.h"

#include "nearkey/base/wall_clock.h"
#include "nearkey/server/admin_changes.h"
#include "nearkey/server/admin_clients.h"
#include "nearkey/server/admin_control.h"
#include "nearkey/server/admin_json.h"
#include "nearkey/server/admin_status.h"
#include "nearkey/server/admin_traffic.h"
#include "nearkey/server/metrics_text.h"

#include <nlohmann/json.hpp>

#include <cmath>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;

Json state_json(std::string_view state, std::string_view reason, double since_seconds) {
    return {{"state", state},
            {"reason", reason},
            {"since", utc_text(wall_clock_ms() - std::llround(since_seconds * 1000))},
            {"since_seconds", std::round(since_seconds * 1000) / 1000}};
}

AdminAnswer livez(AdminSource& source, const AdminRequest& /*request*/) {
    return json_answer(200, state_json("live", "the event loop turns", source.uptime_seconds()));
}

AdminAnswer readyz(AdminSource& source, const AdminRequest& /*request*/) {
    const AdminState now = source.admin_state();
    return json_answer(now.ready ? 200u : 503u,
                       state_json(now.state, now.reason, now.since_seconds));
}

AdminAnswer stats(AdminSource& source, const AdminRequest& /*request*/) {
    return {200, "application/json", stats_text(source.metrics())};
}

AdminAnswer metrics(AdminSource& source, const AdminRequest& request) {
    const MetricsFormat format = metrics_format(request.header("Accept").value_or(""));
    return {200, content_type(format), metrics_text(source.metrics(), format)};
}

}  // namespace

std::span<const AdminRoute> admin_routes() {
    static constexpr AdminRoute kRoutes[] = {
        {"GET", "/", status_page},
        {"GET", "/status", status_json},
        {"GET", "/livez", livez},
        {"GET", "/readyz", readyz},
        {"GET", "/stats", stats},
        {"GET", "/metrics", metrics},
        {"GET", "/hotkeys", hot_keys_page},
        {"GET", "/slowlog", slow_log_page},
        {"GET", "/clients", clients_page},
        {"GET", "/connections", connections_page},
        {"GET", "/config", config_page},
        {"GET", "/log-level", log_level_page},
        {"POST", "/log-level", set_log_level},
        {"POST", "/cache/clear", clear_cache},
        {"GET", "/reload", reload_page},
        {"POST", "/reload", ask_reload},
        {"GET", "/upgrade", upgrade_page},
        {"POST", "/upgrade", ask_upgrade},
    };
    return kRoutes;
}

}  // namespace nearkey
