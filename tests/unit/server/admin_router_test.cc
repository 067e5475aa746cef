// Which page a request gets, without HTTP: the routes, and who is refused over TCP.
#include "nearkey/server/admin_pages.h"

#include "fake_source.h"

#include <doctest/doctest.h>

namespace nearkey::admin_router_test {
namespace {

AdminAnswer echo(AdminSource& /*source*/, const AdminRequest& request) {
    return {200, "text/plain", std::string(request.parameter("level").value_or("none"))};
}

constexpr AdminRoute kRoutes[] = {
    {"GET", "/both", echo},
    {"POST", "/both", echo},
    {"POST", "/act", echo},
};

AdminAnswer answer(const AdminRequest& request, AdminTransport transport) {
    FakeSource source;
    return answer_admin(kRoutes, source, request, transport);
}

AdminRequest post(std::vector<AdminRequest::Named> headers) {
    headers.emplace_back("host", "localhost:9121");
    return {"POST", "/act", {}, headers};
}

unsigned tcp_status(std::vector<AdminRequest::Named> headers) {
    return answer(post(std::move(headers)), AdminTransport::Tcp).status;
}

TEST_CASE("admin routes: method and path decide, HEAD counts as GET") {
    const auto status = [](std::string_view method, std::string_view path) {
        return answer({method, path, {}, {}}, AdminTransport::Unix).status;
    };
    CHECK(status("GET", "/both") == 200);
    CHECK(status("HEAD", "/both") == 200);
    CHECK(status("POST", "/both") == 200);
    CHECK(status("POST", "/act") == 200);
    CHECK(status("GET", "/act") == 405);
    CHECK(status("post", "/act") == 405);
    CHECK(status("GET", "/act/") == 404);
    CHECK(status("GET", "") == 404);
}

TEST_CASE("admin routes: 405 names every method that the page has") {
    const AdminAnswer both = answer({"PUT", "/both", {}, {}}, AdminTransport::Unix);
    REQUIRE(both.headers.size() == 1);
    CHECK(both.headers[0].first == "Allow");
    CHECK(both.headers[0].second == "GET, HEAD, POST");
    const AdminAnswer act = answer({"GET", "/act", {}, {}}, AdminTransport::Unix);
    REQUIRE(act.headers.size() == 1);
    CHECK(act.headers[0].second == "POST");
}

TEST_CASE("admin routes: the first parameter of a name counts, and case does") {
    const AdminRequest request{
        "GET", "/both", {{"Level", "a"}, {"level", "b"}, {"level", "c"}}, {}};
    CHECK(answer(request, AdminTransport::Unix).body == "b");
}

TEST_CASE("admin routes: over TCP no page of another origin may act") {
    CHECK(tcp_status({}) == 200);
    CHECK(tcp_status({{"Origin", "http://localhost:9121"}, {"Sec-Fetch-Site", "same-origin"}}) ==
          200);
    CHECK(tcp_status({{"Sec-Fetch-Site", "none"}}) == 200);
    for (const char* const origin : {"http://evil.example", "null", "http://localhost:9122",
                                     "http://localhost", "https://localhost:9121", ""}) {
        INFO(origin);
        CHECK(tcp_status({{"ORIGIN", origin}}) == 403);
    }
    for (const char* const site : {"cross-site", "same-site", "", "SAME-ORIGIN"}) {
        INFO(site);
        CHECK(tcp_status({{"Sec-Fetch-Site", site}}) == 403);
    }
    AdminRequest request = post({{"Origin", "http://evil.example"}});
    CHECK(answer(request, AdminTransport::Unix).status == 200);
}

TEST_CASE("admin routes: over TCP a POST with the type of an HTML form is refused") {
    for (const char* const type : {"application/x-www-form-urlencoded", "text/plain",
                                   "multipart/form-data; boundary=x", ""}) {
        INFO(type);
        CHECK(tcp_status({{"Content-Type", type}}) == 415);
    }
    CHECK(tcp_status({{"content-type", "Application/JSON"}}) == 200);
}

TEST_CASE("admin routes: over TCP reading needs a loopback Host only") {
    AdminRequest request{"GET", "/both", {}, {{"Host", "[::1]:9121"}, {"Origin", "http://x"}}};
    CHECK(answer(request, AdminTransport::Tcp).status == 200);
    request.headers[0].second = "nearkey.example";
    CHECK(answer(request, AdminTransport::Tcp).status == 403);
    request.headers.clear();
    CHECK(answer(request, AdminTransport::Tcp).status == 403);
}

TEST_CASE("admin routes: every page that acts refuses other methods and foreign pages") {
    FakeSource source;
    unsigned acting = 0;
    for (const AdminRoute& route : admin_routes()) {
        if (route.method != "POST") continue;
        ++acting;
        INFO(route.path);
        const auto ask = [&](std::string_view method, std::vector<AdminRequest::Named> headers) {
            const AdminRequest request{method, route.path, {}, std::move(headers)};
            return answer_admin(admin_routes(), source, request, AdminTransport::Tcp);
        };
        const AdminRequest::Named host{"Host", "127.0.0.1:9121"};
        const AdminAnswer other = ask("DELETE", {host});
        CHECK(other.status == 405);
        REQUIRE(other.headers.size() == 1);
        CHECK(other.headers[0].first == "Allow");
        CHECK(other.headers[0].second.ends_with("POST"));
        CHECK(ask("POST", {{"Host", "evil.example"}}).status == 403);
        CHECK(ask("POST", {host, {"Origin", "http://evil.example"}}).status == 403);
        CHECK(ask("POST", {host, {"Sec-Fetch-Site", "cross-site"}}).status == 403);
        CHECK(ask("POST", {host, {"Content-Type", "text/plain"}}).status == 415);
        CHECK(ask("POST", {host, {"Content-Length", "1"}}).status == 413);
    }
    CHECK(acting == 4);
}

}  // namespace
}  // namespace nearkey::admin_router_test
