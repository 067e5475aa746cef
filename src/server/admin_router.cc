// Chooses the page for a request, and refuses those that get none.
#include "nearkey/base/ignoring_case.h"
#include "nearkey/server/admin_page_functions.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>

namespace nearkey {

namespace {

// "127.0.0.1", "localhost" or "[::1]", with a port or without.
bool names_loopback(std::string_view host) {
    static constexpr std::array<std::string_view, 3> kNames = {"127.0.0.1", "localhost", "[::1]"};
    return std::any_of(kNames.begin(), kNames.end(), [&](std::string_view name) {
        if (!host.starts_with(name)) return false;
        std::string_view rest = host.substr(name.size());
        if (rest.empty()) return true;
        if (rest.front() != ':') return false;
        rest.remove_prefix(1);
        return std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; });
    });
}

// True by the headers of a browser whose page of another origin (another port of this host
// included) made it send the request. Other programs send none of these headers.
bool is_from_another_origin(const AdminRequest& request, std::string_view host) {
    const auto site = request.header("Sec-Fetch-Site");
    if (site && *site != "same-origin" && *site != "none") return true;
    const auto origin = request.header("Origin");
    return origin && *origin != "http://" + std::string(host);
}

std::optional<AdminAnswer> refusal_over_tcp(const AdminRequest& request) {
    const std::string_view host = request.header("Host").value_or("");
    // A web page reaches us through a name of its own that resolves to 127.0.0.1: DNS rebinding.
    if (!names_loopback(host)) {
        return admin_error(403, "Host must be 127.0.0.1, localhost or [::1]");
    }
    // The browser keeps a GET's answer from such a page; a POST would have been done by then.
    if (request.method != "POST") return std::nullopt;
    if (is_from_another_origin(request, host)) {
        return admin_error(403, "a page of another origin may not do this");
    }
    // The types of an HTML form, which browsers send anywhere without asking first.
    const auto type = request.header("Content-Type");
    if (type && !equals_ignoring_case(*type, "application/json")) {
        return admin_error(415, "Content-Type must be application/json or absent");
    }
    return std::nullopt;
}

AdminAnswer not_found(std::span<const AdminRoute> routes) {
    nlohmann::ordered_json pages = nlohmann::ordered_json::array();
    for (const AdminRoute& route : routes) {
        pages.push_back(std::string(route.method) + " " + std::string(route.path));
    }
    return json_answer(404, {{"error", "there is no such page"}, {"pages", pages}});
}

}  // namespace

AdminAnswer admin_error(unsigned status, std::string_view what) {
    return json_answer(status, {{"error", what}});
}

AdminAnswer json_answer(unsigned status, const nlohmann::ordered_json& json) {
    const auto replace = nlohmann::ordered_json::error_handler_t::replace;
    return {status, "application/json", json.dump(-1, ' ', false, replace) + '\n'};
}

AdminAnswer answer_admin(std::span<const AdminRoute> routes, AdminSource& source,
                         const AdminRequest& request, AdminTransport transport) {
    if (transport == AdminTransport::Tcp) {
        if (auto refusal = refusal_over_tcp(request)) return *std::move(refusal);
    }
    if (request.has_body()) {
        return admin_error(413,
                           "no page takes a body: parameters go into the query, /page?name=value");
    }
    const std::string_view method = request.method == "HEAD" ? "GET" : request.method;
    std::string allowed;
    for (const AdminRoute& route : routes) {
        if (route.path != request.path) continue;
        if (route.method == method) return route.answer(source, request);
        if (!allowed.empty()) allowed += ", ";
        allowed += route.method == "GET" ? "GET, HEAD" : route.method;
    }
    if (allowed.empty()) return not_found(routes);
    AdminAnswer answer = admin_error(405, "this page takes " + allowed);
    answer.headers.emplace_back("Allow", allowed);
    return answer;
}

}  // namespace nearkey
