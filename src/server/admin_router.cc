// Which page a request gets, and which requests get none.
#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/parse_number.h"
#include "nearkey/server/admin_json.h"

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

// What a browser says of a request that a page of another origin (another port of this host
// included) makes it send. Other programs send none of these headers.
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
    // What it could read by GET, its browser keeps from it; a POST would have been done by then.
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

std::optional<std::string_view> first(const std::vector<AdminRequest::Named>& all,
                                      std::string_view name,
                                      bool (*is_equal)(std::string_view, std::string_view)) {
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const auto& one) { return is_equal(one.first, name); });
    if (found == all.end()) return std::nullopt;
    return found->second;
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
