// The admin pages, as a probe sees them: a real loop, a real socket, HTTP by hand on a thread.
#include "nearkey/server/admin_server.h"

#include "../run_until.h"
#include "fake_source.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace nearkey::admin_server_test {
namespace {

int connected_to(const std::string& address) {
    const SocketAddress parsed = parse_socket_address(address);
    const int fd = socket(parsed.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, parsed.get(), parsed.length) == 0) return fd;
    close(fd);
    return -1;
}

// Sends the bytes and reads to the end of the connection.
std::string exchange(const std::string& address, const std::string& request) {
    const int fd = connected_to(address);
    if (fd < 0) return "refused";
    std::string answer;
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
        char bytes[4096];
        for (ssize_t count; (count = recv(fd, bytes, sizeof bytes, 0)) > 0;) {
            answer.append(bytes, static_cast<size_t>(count));
        }
    }
    close(fd);
    return answer;
}

std::unique_ptr<ListenSocket> listen_at(const std::string& address) {
    return std::make_unique<ListenSocket>(address, 64, SocketFile{0600});
}

struct Admin {
    TemporaryDirectory directory;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Loop loop;
    FakeSource source;
    Log log{null_fd, LogLevel::Info, source.counted};
    std::unique_ptr<AdminServer> server;

    explicit Admin(const std::string& address = "", AdminReach reach = AdminReach::Host) {
        const std::string path = address.empty() ? directory / "admin.sock" : address;
        server = std::make_unique<AdminServer>(loop, log, listen_at(path), source, reach);
    }
    ~Admin() {
        server.reset();
        close(null_fd);
    }

    // What the server sends to these bytes, while the loop turns.
    std::string raw(const std::string& request) {
        std::atomic<bool> is_done = false;
        std::string answer;
        std::thread client([&] {
            answer = exchange(server->address(), request);
            is_done = true;
        });
        run_until(loop, [&] { return is_done.load(); });
        client.join();
        return answer;
    }
    std::string ask(const std::string& first_line, const std::string& host = "nearkey") {
        return raw(first_line + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n");
    }
};

int status_of(const std::string& answer) {
    return answer.starts_with("HTTP/1.1 ") ? std::stoi(answer.substr(9, 3)) : 0;
}

std::string body_of(const std::string& answer) {
    const size_t end = answer.find("\r\n\r\n");
    return end == std::string::npos ? "" : answer.substr(end + 4);
}

nlohmann::json json_of(const std::string& answer) {
    return nlohmann::json::parse(body_of(answer), nullptr, false);
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("admin: other hosts read three pages, by whatever name they call this one") {
    Admin admin("127.0.0.1:0", AdminReach::Network);
    admin.source.counted.clients = 3;
    for (const std::string path : {"/livez", "/readyz", "/metrics"}) {
        CAPTURE(path);
        CHECK(status_of(admin.ask("GET " + path, "nearkey.example:9121")) == 200);
        CHECK(status_of(admin.ask("HEAD " + path)) == 200);
        CHECK(status_of(admin.ask("POST " + path)) == 405);
    }
    CHECK(contains(admin.ask("GET /metrics"), "nearkey_clients 3\n"));
    for (const AdminRoute& route : admin_routes()) {
        const std::string line = std::string(route.method) + " " + std::string(route.path);
        CAPTURE(line);
        const bool is_open =
            route.path == "/livez" || route.path == "/readyz" || route.path == "/metrics";
        CHECK(status_of(admin.ask(line)) == (is_open ? 200 : 404));
    }
    CHECK_FALSE(contains(admin.ask("GET /"), "/config"));
}

TEST_CASE("admin: the headers of another host's request are short") {
    Admin admin("127.0.0.1:0", AdminReach::Network);
    const auto with_header = [](size_t size) {
        return "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " +
               std::string(size, 'a') + "\r\n\r\n";
    };
    CHECK(status_of(admin.raw(with_header(4000))) == 200);
    CHECK(status_of(admin.raw(with_header(9000))) != 200);
    Admin host("127.0.0.1:0");
    const std::string own = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " +
                            std::string(9000, 'a') + "\r\n\r\n";
    CHECK(status_of(host.raw(own)) == 200);
}

TEST_CASE("admin: /livez answers while the loop turns") {
    Admin admin;
    const std::string answer = admin.ask("GET /livez");
    CHECK(status_of(answer) == 200);
    CHECK(json_of(answer)["state"] == "live");
    CHECK(contains(answer, "application/json"));
    CHECK(contains(answer, "no-store"));
}

TEST_CASE("admin: /readyz says whether, why and since when") {
    Admin admin;
    std::string answer = admin.ask("GET /readyz");
    CHECK(status_of(answer) == 200);
    CHECK(json_of(answer)["state"] == "ready");
    CHECK(json_of(answer)["since_seconds"] == 1.5);
    const std::string since = json_of(answer)["since"];
    CHECK(since.size() == 24);
    CHECK(since[10] == 'T');
    CHECK(since.ends_with("Z"));

    admin.source.state = {false, "not ready", "no \"connection\" \xff", 0.25};
    answer = admin.ask("GET /readyz");
    CHECK(status_of(answer) == 503);
    CHECK(json_of(answer)["state"] == "not ready");
    CHECK(json_of(answer)["reason"] == "no \"connection\" \xef\xbf\xbd");

    admin.source.state = {false, "draining", "SIGTERM", 0};
    answer = admin.ask("GET /readyz");
    CHECK(status_of(answer) == 503);
    CHECK(json_of(answer)["state"] == "draining");
}

TEST_CASE("admin: /stats has every metric as a number") {
    Admin admin;
    admin.source.counted.clients = 3;
    admin.source.counted.heartbeats_total = UINT64_MAX;
    const std::string answer = admin.ask("GET /stats");
    CHECK(status_of(answer) == 200);
    const nlohmann::json stats = json_of(answer);
    CHECK(stats.size() > metric_rows().size());
    CHECK(stats["nearkey_clients"] == 3);
    CHECK(stats["nearkey_heartbeats_total"] == UINT64_MAX);
}

TEST_CASE("admin: /metrics is Prometheus text, with help and type for each metric") {
    Admin admin;
    admin.source.counted.clients = 3;
    const std::string answer = admin.ask("GET /metrics");
    CHECK(status_of(answer) == 200);
    CHECK(contains(answer, "Content-Type: text/plain; version=0.0.4"));
    CHECK(contains(answer,
                   "# TYPE nearkey_clients gauge\n"
                   "# HELP nearkey_clients clients connected now\nnearkey_clients 3\n"));
    CHECK(contains(answer, "\nnearkey_heartbeats_total 0\n"));
    CHECK(answer.ends_with("\n"));
}

TEST_CASE("admin: HEAD has the header of GET and no body") {
    Admin admin;
    const std::string answer = admin.ask("HEAD /metrics");
    CHECK(status_of(answer) == 200);
    CHECK(contains(answer, "Content-Length: "));
    CHECK(body_of(answer).empty());
}

TEST_CASE("admin: another path is 404, another method 405 and says which are allowed") {
    Admin admin;
    for (const char* const path : {"/nothing", "/readyz/", "/readyz/../stats", "/%2e", "*"}) {
        INFO(path);
        const std::string answer = admin.ask(std::string("GET ") + path);
        CHECK(status_of(answer) == 404);
        const nlohmann::json pages = json_of(answer)["pages"];
        CHECK(pages.size() == admin_routes().size());
        CHECK(pages[0] == "GET /");
    }
    for (const char* const method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"}) {
        INFO(method);
        const std::string answer = admin.ask(std::string(method) + " /readyz");
        CHECK(status_of(answer) == 405);
        CHECK(contains(answer, "Allow: GET, HEAD\r\n"));
    }
    CHECK(status_of(admin.ask("POST /nothing")) == 404);
    CHECK(status_of(admin.ask("GET /readyz?verbose=1")) == 200);
}

TEST_CASE("admin: a body is refused without reading it") {
    Admin admin;
    for (const char* const start : {"POST /readyz", "GET /readyz", "POST /nothing"}) {
        for (const char* const size :
             {"Content-Length: 999999999", "Content-Length: 3", "Transfer-Encoding: chunked",
              "Content-Length: 3\r\nExpect: 100-continue"}) {
            INFO(start << " " << size);
            const std::string answer =
                admin.raw(std::string(start) + " HTTP/1.1\r\nHost: x\r\n" + size + "\r\n\r\nabc");
            CHECK(status_of(answer) == 413);
        }
    }
    CHECK(status_of(admin.raw("GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                              "Content-Length: 0\r\n\r\n")) == 200);
}

TEST_CASE("admin: a request line or a header that is too long is refused") {
    Admin admin;
    const std::string long_text(100'000, 'x');
    CHECK(status_of(admin.ask("GET /livez?" + long_text)) == 414);
    CHECK(status_of(admin.raw("GET /livez HTTP/1.1\r\nX: " + long_text + "\r\n\r\n")) == 431);
    std::string many = "GET /livez HTTP/1.1\r\n";
    for (int i = 0; i < 10'000; ++i)
        many += "X: y\r\n";
    CHECK(status_of(admin.raw(many + "\r\n")) == 431);
    CHECK(status_of(admin.ask("GET /livez")) == 200);
}

TEST_CASE("admin: no answer may be used by a page of another origin") {
    Admin admin;
    for (const char* const path : {"/livez", "/nothing"}) {
        const std::string answer = admin.ask(std::string("GET ") + path);
        CHECK(contains(answer, "X-Content-Type-Options: nosniff\r\n"));
        CHECK(contains(answer, "Cross-Origin-Resource-Policy: same-origin\r\n"));
        CHECK(contains(answer, "X-Frame-Options: DENY\r\n"));
        CHECK(!contains(answer, "Access-Control-"));
    }
}

TEST_CASE("admin: a connection may ask more than once") {
    Admin admin;
    const std::string one = "GET /livez HTTP/1.1\r\nHost: x\r\n";
    const std::string answer = admin.raw(one + "\r\n" + one + "Connection: close\r\n\r\n");
    CHECK(status_of(answer) == 200);
    CHECK(contains(body_of(answer), "HTTP/1.1 200"));
}

TEST_CASE("admin: nonsense is answered with an error, not believed") {
    Admin admin;
    CHECK(status_of(admin.raw("*1\r\n$4\r\nPING\r\n\r\n")) != 200);
    CHECK(status_of(admin.ask("GET /livez")) == 200);
}

TEST_CASE("admin: over TCP only loopback hosts are answered, over a Unix socket any") {
    Admin tcp("127.0.0.1:0");
    for (const char* const host :
         {"127.0.0.1", "localhost", "[::1]", "127.0.0.1:9121", "localhost:1", "[::1]:65535"}) {
        INFO(host);
        CHECK(status_of(tcp.ask("GET /livez", host)) == 200);
    }
    for (const char* const host : {"", "evil.example", "127.0.0.1.evil.example", "localhost.evil",
                                   "127.0.0.1:80@evil.example", "evil:127.0.0.1", "[::1]evil"}) {
        INFO(host);
        CHECK(status_of(tcp.ask("GET /livez", host)) == 403);
        CHECK(status_of(tcp.ask("POST /nothing", host)) == 403);
    }
    CHECK(contains(tcp.raw("GET /livez HTTP/1.0\r\n\r\n"), " 403 "));
    Admin local;
    CHECK(status_of(local.ask("GET /livez", "evil.example")) == 200);
}

TEST_CASE("admin: silent connections take no place for ever") {
    Admin admin;
    std::vector<int> silent;
    for (int i = 0; i < 32; ++i)
        silent.push_back(connected_to(admin.server->address()));
    // It waits behind them until the first is timed out, and is then served.
    CHECK(status_of(admin.ask("GET /livez")) == 200);
    for (const int fd : silent)
        close(fd);
}

TEST_CASE("admin: a request whose bytes drip in takes no place for ever (faults.md row 68)") {
    Admin admin;
    const int fd = connected_to(admin.server->address());
    REQUIRE(send(fd, "GET /livez HTTP/1.1\r\nX: ", 23, MSG_NOSIGNAL) == 23);
    std::atomic<bool> is_done = false;
    std::thread dripper([&] {
        while (send(fd, "x", 1, MSG_NOSIGNAL) == 1)
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        is_done = true;
    });
    CHECK(run_until(admin.loop, [&] { return is_done.load(); }));
    if (!is_done) shutdown(fd, SHUT_RDWR);
    dripper.join();
    close(fd);
}

TEST_CASE("admin: the socket has its mode, goes with the server, and is not stolen") {
    Admin admin;
    const std::string path = admin.server->address();
    struct stat found {};
    REQUIRE(stat(path.c_str(), &found) == 0);
    CHECK((found.st_mode & 0777) == 0600);
    CHECK_THROWS_AS(
        AdminServer(admin.loop, admin.log, listen_at(path), admin.source, AdminReach::Host),
        ListenError);
    CHECK(status_of(admin.ask("GET /livez")) == 200);
    const int open_connection = connected_to(path);
    admin.server.reset();
    CHECK(admin.directory.is_empty());
    close(open_connection);
}

}  // namespace
}  // namespace nearkey::admin_server_test
