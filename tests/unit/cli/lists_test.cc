// The verbs that show pages, against servers that say odd things.
#include "nearkey/cli/ask.h"

#include "nearkey/cli/stats.h"

#include "one_answer.h"

#include <doctest/doctest.h>

#include <sstream>

namespace nearkey::lists_test {
namespace {

struct Outcome {
    int exit_code = -1;
    std::string out;
    std::string err;
    std::string request;
};

Outcome run(AskFunction ask, const AskOptions& options, const std::string& answer) {
    const TemporaryDirectory directory;
    Outcome outcome;
    std::ostringstream out;
    std::ostringstream err;
    {
        const OneAnswer server(directory / "admin.sock", answer, Ending::Close);
        AskOptions asked = options;
        asked.target = {server.address(), 5000};
        outcome.exit_code = ask(asked, out, err);
        outcome.request = server.request();
    }
    outcome.out = out.str();
    outcome.err = err.str();
    return outcome;
}

std::string http(const std::string& status, const std::string& body) {
    return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("lists: what is no page of nearkey's is said to be none") {
    for (const std::string& body :
         {std::string("hello"), std::string("[]"), std::string("{}"), std::string("null"),
          std::string(R"({"error":"no"})"), std::string(5000, '[')}) {
        for (const AskFunction ask : {run_clients, run_connections, run_hot_keys, run_slow_log,
                                      run_log_level, run_cache_clear, run_reload, run_stats}) {
            INFO(body.substr(0, 40));
            const Outcome outcome = run(ask, {}, http("200 OK", body));
            CHECK(outcome.exit_code == 2);
            CHECK(outcome.out.empty());
            CHECK(contains(outcome.err, "something that is not nearkey answers at "));
            CHECK(outcome.err.find('\n') == outcome.err.size() - 1);
        }
    }
}

TEST_CASE("lists: what nearkey refuses is told, on one line") {
    const Outcome outcome =
        run(run_clients, {}, http("400 x", "{\"error\":\"limit\\nis\\u001b[2J\"}"));
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err == "nearkey: limit?is?[2J\n");
}

TEST_CASE("lists: rows of odd types are shown, and no control character of theirs") {
    const Outcome clients =
        run(run_clients, {}, http("200 OK", R"({"total":7,"next":null,"clients":[
        {"session":"x","pid":"y","uid":-1,"name":"a\u0007b","database":[1],"bytes_in":null,
         "age_seconds":"old","command":"\u001b]0;t"}]})"));
    CHECK(clients.exit_code == 0);
    CHECK(contains(clients.out, "a?b"));
    CHECK(contains(clients.out, "1 of 7 clients, more with --limit\n"));
    for (const char c : clients.out)
        CHECK((c == '\n' || (c >= ' ' && c < 0x7f)));
    const Outcome odd = run(run_clients, {}, http("200 OK", R"({"total":"all","clients":[1,2]})"));
    CHECK(odd.out == "0 clients\n");
    const Outcome keys = run(run_hot_keys, {}, http("200 OK", R"({"hits":{},"misses":7})"));
    CHECK(keys.exit_code == 0);
    CHECK(keys.out.starts_with("no hits\n\nno misses\n"));
    const Outcome slow =
        run(run_slow_log, {}, http("200 OK", R"({"entries":[{"time_ms":1e300}]})"));
    CHECK(slow.exit_code == 0);
    CHECK(contains(slow.out, "1 request\n"));
}

TEST_CASE("lists: --json is one line of ASCII, with the same content") {
    AskOptions options;
    options.json = true;
    const Outcome outcome = run(
        run_connections, options,
        http("200 OK", "{ \"connections\" : [ {\"address\":\"\xc2\x9b\"} ], \"total\": 0.25 }"));
    CHECK(outcome.out == "{\"connections\":[{\"address\":\"\\u009b\"}],\"total\":0.25}\n");
}

TEST_CASE("lists: the limit is asked for, and holds for a server that says more") {
    AskOptions options;
    options.limit = 1;
    const Outcome outcome = run(run_connections, options, http("200 OK", R"({"total":2,
        "connections":[{"kind":"shared"},{"kind":"tunnel"}]})"));
    CHECK(outcome.request.starts_with("GET /connections?limit=1 HTTP/1.1\r\n"));
    CHECK_FALSE(contains(outcome.out, "tunnel"));
}

TEST_CASE("changes: what acts is a POST without a body") {
    const Outcome outcome = run(run_cache_clear, {}, http("200 OK", R"({"dropped":12})"));
    CHECK(outcome.request.starts_with("POST /cache/clear HTTP/1.1\r\nHost: localhost\r\n"));
    CHECK(contains(outcome.request, "Content-Length: 0\r\n"));
    CHECK(outcome.out == "the near cache is empty; it had 12 replies\n");
}

}  // namespace
}  // namespace nearkey::lists_test
