// `nearkey ready` against a server of our own making that says one thing.
#include "nearkey/cli/ask.h"

#include "one_answer.h"

#include <doctest/doctest.h>

#include <chrono>
#include <sstream>

namespace nearkey::ready_test {
namespace {

struct Outcome {
    int exit_code = -1;
    std::string line;
};

Outcome probe(const std::string& address, int timeout_ms) {
    std::ostringstream out;
    Outcome outcome;
    AskOptions options;
    options.target = {address, timeout_ms};
    outcome.exit_code = run_ready(options, out, out);
    outcome.line = out.str();
    CHECK(outcome.line.ends_with("\n"));
    CHECK(outcome.line.find('\n') == outcome.line.size() - 1);
    return outcome;
}

Outcome probe_of(const std::string& answer) {
    const TemporaryDirectory directory;
    const OneAnswer server(directory / "admin.sock", answer, Ending::Close);
    return probe(server.address(), 5000);
}

std::string http(const std::string& status, const std::string& body) {
    return "HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\n\r\n" + body;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("ready: 0 when it is ready, over a Unix socket and over TCP") {
    const std::string answer =
        http("200 OK", R"({"state":"ready","reason":"","since":"2026-01-02T03:04:05.678Z"})");
    const Outcome outcome = probe_of(answer);
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.line == "ready (since 2026-01-02T03:04:05.678Z)\n");
    for (const char* const address : {"127.0.0.1:0", "tcp:127.0.0.1:0"}) {
        const OneAnswer server(address, answer, Ending::Close);
        CHECK(probe(server.address(), 5000).exit_code == 0);
    }
}

TEST_CASE("ready: it asks for /readyz with a Host that the admin server accepts") {
    const TemporaryDirectory directory;
    std::string request;
    {
        const OneAnswer server(directory / "admin.sock", "", Ending::Close);
        probe(server.address(), 5000);
        request = server.request();
    }
    CHECK(request.starts_with("GET /readyz HTTP/1.1\r\nHost: localhost\r\n"));
}

TEST_CASE("ready: 1 when it is not ready, with the reason") {
    const Outcome outcome =
        probe_of(http("503 Service Unavailable", R"({"state":"not ready","reason":"LOADING"})"));
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.line == "not ready: LOADING\n");
    CHECK(probe_of(http("503 x", R"({"state":"draining"})")).line == "draining\n");
}

TEST_CASE("ready: 2 when nobody is there") {
    const TemporaryDirectory directory;
    const Outcome outcome = probe(directory / "admin.sock", 5000);
    CHECK(outcome.exit_code == 2);
    CHECK(contains(outcome.line, directory / "admin.sock"));
    CHECK(contains(outcome.line, "No such file"));
    CHECK(probe("not an address", 5000).exit_code == 2);
}

TEST_CASE("ready: 2 when the answer does not come in time, or not to its end") {
    for (const char* const part : {"", "HTTP/1.1 200 OK\r\n"}) {
        const TemporaryDirectory directory;
        const OneAnswer server(directory / "admin.sock", part, Ending::StayOpen);
        const auto begin = std::chrono::steady_clock::now();
        const Outcome outcome = probe(server.address(), 50);
        CHECK(outcome.exit_code == 2);
        CHECK(contains(outcome.line, "no answer in time"));
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
    }
}

TEST_CASE("ready: 2 when something else answers") {
    for (const std::string& answer :
         {std::string("-ERR unknown command\r\n"), http("200 OK", "hello"),
          http("200 OK", R"(["ready"])"), http("200 OK", R"({"state":7})"),
          http("200 OK", R"({"state":"not ready"})"), http("503 x", R"({"state":"ready"})"),
          http("404 Not Found", R"({"state":"ready"})"), http("503 x", std::string(5000, '[')),
          std::string(200'000, 'x')}) {
        INFO(answer.substr(0, 60));
        const Outcome outcome = probe_of(answer);
        CHECK(outcome.exit_code == 2);
        CHECK(contains(outcome.line, "something that is not nearkey"));
    }
}

TEST_CASE("ready: 2 when the answer ends too early") {
    for (const std::string& answer :
         {std::string(), std::string("HTTP/1.1 200"), std::string("HTTP/1.1 200 OK\r\nA: b\r\n"),
          std::string("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"state\":\"ready\"}")}) {
        INFO(answer);
        const Outcome outcome = probe_of(answer);
        CHECK(outcome.exit_code == 2);
        CHECK(contains(outcome.line, "ended too early"));
    }
}

TEST_CASE("ready: 2 when the answer has no end") {
    const Outcome outcome = probe_of(http("200 OK", std::string(kHttpAnswerMax, 'x')));
    CHECK(outcome.exit_code == 2);
    CHECK(contains(outcome.line, "is longer than 16.0 MiB"));
}

TEST_CASE("ready: one line, whatever the other side says") {
    const Outcome outcome =
        probe_of(http("503 x", R"({"state":"not ready","reason":"a\nb\u001b[31m"})"));
    CHECK(outcome.line == "not ready: a?b?[31m\n");
}

}  // namespace
}  // namespace nearkey::ready_test
