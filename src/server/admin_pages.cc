#include "nearkey/server/admin_pages.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/parse_number.h"
#include "nearkey/base/wall_clock.h"
#include "nearkey/server/admin_page_functions.h"
#include "nearkey/server/metrics_text.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <unistd.h>
#include <algorithm>
#include <climits>
#include <cmath>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;

std::optional<std::string_view> first(const std::vector<AdminRequest::Named>& all,
                                      std::string_view name,
                                      bool (*is_equal)(std::string_view, std::string_view)) {
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const auto& one) { return is_equal(one.first, name); });
    if (found == all.end()) return std::nullopt;
    return found->second;
}

// The server, the cluster and the Sentinels, as /readyz and /status have them.
void add_upstream(Json& json, const AdminState& state) {
    if (!state.server.address.empty()) {
        json["server"] = {{"address", state.server.address}, {"role", state.server.role}};
    }
    if (state.cluster) {
        json["cluster"] = {{"nodes", state.cluster->nodes},
                           {"nodes_away", state.cluster->nodes_away},
                           {"slots_unserved", state.cluster->slots_unserved}};
    }
    if (state.sentinels.empty()) return;
    Json& sentinels = json["sentinels"] = Json::array();
    for (const SentinelFacts& sentinel : state.sentinels) {
        sentinels.push_back({{"address", sentinel.address},
                             {"reachable", sentinel.is_reachable},
                             {"state", sentinel.state}});
    }
}

Json live_json(std::string_view state, std::string_view reason, double since_seconds) {
    return {{"state", state},
            {"reason", reason},
            {"since", utc_text(wall_clock_ms() - std::llround(since_seconds * 1000))},
            {"since_seconds", std::round(since_seconds * 1000) / 1000}};
}

AdminAnswer status_page(AdminSource& /*source*/, const AdminRequest& /*request*/) {
    return {200,
            "text/html; charset=utf-8",
            std::string(kStatusPage),
            {{"Content-Security-Policy", std::string(kStatusPagePolicy)},
             {"Referrer-Policy", "no-referrer"}}};
}

std::string host_name() {
    char name[HOST_NAME_MAX + 1] = {};
    return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

// Host, version, state, reason and ages. 200 also when not ready, unlike /readyz: a browser would
// note each 503 as an error of the page.
AdminAnswer status_json(AdminSource& source, const AdminRequest& /*request*/) {
    const AdminState now = source.admin_state();
    Json json = {{"version", NEARKEY_VERSION},
                 {"host", host_name()},
                 {"upstream", now.upstream},
                 {"id", fmt::format("{:x}", source.history().id())},
                 {"state", now.state},
                 {"reason", now.reason},
                 {"since_seconds", now.since_seconds},
                 {"uptime_seconds", source.uptime_seconds()}};
    add_upstream(json, now);
    Json pages = Json::array();
    for (const AdminRoute& route : admin_routes()) {
        if (route.method == "GET") pages.push_back(route.path);
    }
    json["pages"] = std::move(pages);
    return json_answer(200, json);
}

AdminAnswer livez(AdminSource& source, const AdminRequest& /*request*/) {
    return json_answer(200, live_json("live", "the event loop turns", source.uptime_seconds()));
}

AdminAnswer readyz(AdminSource& source, const AdminRequest& /*request*/) {
    const AdminState now = source.admin_state();
    Json json = live_json(now.state, now.reason, now.since_seconds);
    add_upstream(json, now);
    return json_answer(now.ready ? 200u : 503u, json);
}

AdminAnswer stats(AdminSource& source, const AdminRequest& /*request*/) {
    return {200, "application/json", stats_text(source.metrics())};
}

AdminAnswer metrics(AdminSource& source, const AdminRequest& request) {
    const MetricsFormat format = metrics_format(request.header("Accept").value_or(""));
    return {200, content_type(format), metrics_text(source.metrics(), format)};
}

AdminAnswer recent_metrics(AdminSource& source, const AdminRequest& request) {
    const MetricsFormat format = metrics_format(request.header("Accept").value_or(""));
    return {200, content_type(format), source.recent_metrics(format)};
}

}  // namespace

std::optional<std::string_view> AdminRequest::parameter(std::string_view name) const {
    return first(parameters, name, [](std::string_view a, std::string_view b) { return a == b; });
}

std::optional<std::string_view> AdminRequest::header(std::string_view name) const {
    return first(headers, name, equals_ignoring_case);
}

bool AdminRequest::read_number(std::string_view name, uint64_t max, uint64_t& value) const {
    const auto text = parameter(name);
    if (!text) return true;
    const auto number = parse_number<uint64_t>(*text);
    if (!number || *number > max) return false;
    value = *number;
    return true;
}

bool AdminRequest::has_body() const {
    return header("Transfer-Encoding") || header("Content-Length").value_or("0") != "0";
}

std::span<const AdminRoute> admin_routes() {
    static constexpr AdminRoute kRoutes[] = {
        {"GET", "/", status_page},
        {"GET", "/status", status_json},
        {"GET", "/livez", livez},
        {"GET", "/readyz", readyz},
        {"GET", "/stats", stats},
        {"GET", "/metrics", metrics},
        {"GET", "/history", history_page},
        {"GET", "/hotkeys", hot_keys_page},
        {"GET", "/slowlog", slow_log_page},
        {"GET", "/clients", clients_page},
        {"GET", "/connections", connections_page},
        {"GET", "/nodes", nodes_page},
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

std::span<const AdminRoute> network_routes() {
    static constexpr AdminRoute kRoutes[] = {
        {"GET", "/metrics", recent_metrics},
        {"GET", "/livez", livez},
        {"GET", "/readyz", readyz},
    };
    return kRoutes;
}

}  // namespace nearkey
