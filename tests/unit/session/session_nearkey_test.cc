// NEARKEY HELP, STATS and EXPLAIN.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include <doctest/doctest.h>

namespace nearkey::session_nearkey_test {
namespace {

// What one command is answered with, once it is whole.
Value answer_to(SessionRig& rig, FakeClient& client, const std::string& line) {
    const size_t before = client.output().size();
    client.ask({line});
    std::optional<Value> value;
    REQUIRE(run_until(rig.loop, [&] {
        value = parse_value(client.output().substr(before));
        return value.has_value();
    }));
    return *value;
}

std::string route_of(SessionRig& rig, FakeClient& client, const std::string& command) {
    const Value answer = answer_to(rig, client, "NEARKEY EXPLAIN " + command);
    REQUIRE(answer.elements.size() == 18);
    CHECK(answer.elements[0].text == "command");
    CHECK(answer.elements[2].text == "route");
    CHECK(answer.elements[4].text == "reason");
    CHECK_FALSE(answer.elements[5].text.empty());
    CHECK(answer.text_of("server") == rig.url.path);
    CHECK(answer.text_of("role") == "primary");
    CHECK(answer.elements[10].text == "writes");
    CHECK(answer.elements[12].text == "keys");
    CHECK(answer.text_of("cache") == "bypassed");
    CHECK_FALSE(answer.text_of("cache_reason").empty());
    return answer.elements[1].text + ": " + answer.elements[3].text;
}

TEST_CASE("nearkey: HELP names each sub-command") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    const Value help = answer_to(rig, client, "nearkey help");
    std::string text;
    for (const Value& line : help.elements)
        text += line.text + "\n";
    for (const char* word : {"EXPLAIN <command>", "STATS\n", "HELP\n"})
        CHECK(text.find(word) != std::string::npos);
}

TEST_CASE("nearkey: STATS tells every metric, as a map where the protocol has them") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.ask({"GET a"});
    REQUIRE(rig.run_until_output(client, "+GET a\r\n"));
    const Value stats = answer_to(rig, client, "NEARKEY STATS");
    size_t count = 0;
    MetricsGroup group;
    group.add(rig.metrics);
    // But NEARKEY's own series, which STATS itself is the first of.
    for_each_stat(group.total(), [&](std::string_view name, std::string_view) {
        count += name.find("\"nearkey\"") == std::string_view::npos ? 1 : 0;
    });
    CHECK(stats.type == '*');
    REQUIRE(stats.elements.size() == 2 * count);
    CHECK(stats.find("nearkey_commands_forwarded_total")->integer == 1);
    CHECK(stats.find("nearkey_upstream_connections")->integer == 1);
    CHECK(answer_to(rig, client, "HELLO 3").type == '%');
    const Value map = answer_to(rig, client, "NEARKEY STATS");
    CHECK(map.type == '%');
    // HELLO and NEARKEY were received since, each with both routes.
    CHECK(map.elements.size() == 2 * (count + 4));
}

TEST_CASE("nearkey: EXPLAIN tells the route that a command takes") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    const std::map<std::string, std::string> routes{
        {"GET k", "get: shared"},
        {"get k", "get: shared"},
        {"BLPOP k 0", "blpop: dedicated"},
        {"EVAL x 0", "eval: dedicated"},
        {"XREAD STREAMS s 0", "xread: shared"},
        {"XREAD BLOCK 0 STREAMS s 0", "xread: dedicated"},
        {"SUBSCRIBE c", "subscribe: tunnel"},
        {"CLIENT REPLY OFF", "client|reply: tunnel"},
        {"CLIENT SETNAME x", "client|setname: local"},
        {"NEARKEY EXPLAIN x", "nearkey: local"},
        {"SELECT 1", "select: local"},
        {"SELECT x", "select: dedicated, closed afterwards unless the server refused"},
        {"HELLO 3 AUTH u p", "hello: tunnel"},
        {"POST /", "post: the client is closed"},
        {"MULTI", "multi: shared if the transaction arrives whole, else dedicated"},
        {"WATCH k", "watch: dedicated"},
        {"EXEC", "exec: shared"},
        {"DISCARD", "discard: shared"},
        {"UNWATCH", "unwatch: shared"},
        {"GET", "get: shared"},
        {"EVAL x", "eval: dedicated, closed afterwards unless the server refused"},
        {"WHAT now", "WHAT: dedicated, closed afterwards unless the server refused"},
        {"CLIENT WHAT", "CLIENT: dedicated, closed afterwards unless the server refused"},
        {"''", ": dedicated, closed afterwards unless the server refused"},
    };
    for (const auto& [command, expected] : routes)
        CHECK(route_of(rig, client, command) == expected);
    CHECK(rig.valkey.peer_count() == 1);
    CHECK(rig.metrics.commands.total(&CommandCount::forwarded) == 0);
    CHECK_FALSE(rig.is_ended(client));
}

TEST_CASE("nearkey: what EXPLAIN is asked about does not disturb what comes behind it") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    client.send("NEARKEY EXPLAIN GET k\r\nGET 'a b'\r\n" + encoded("MULTI") + encoded("GET c") +
                encoded("EXEC"));
    CHECK(run_until(rig.loop, [&] {
        return client.output().ends_with("+GET a b\r\n+MULTI\r\n+GET c\r\n+EXEC\r\n");
    }));
    CHECK(rig.valkey.peer_count() == 1);
}

TEST_CASE("nearkey: what it does not know is an error, each with the client's own words") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    CHECK(answer_to(rig, client, "NEARKEY").text ==
          "ERR wrong number of arguments for 'nearkey' command");
    for (const std::string what : {"WHAT", "EXPLAIN", "HELP", "STATS"}) {
        const std::string extra = what == "HELP" || what == "STATS" ? " x" : "";
        const Value answer = answer_to(rig, client, "NEARKEY " + what + extra);
        CHECK("-" + answer.text + "\r\n" == local_answer(what));
    }
    const Value answer = answer_to(rig, client, "NEARKEY 'a\r\n" + std::string(200, 'b') + "'");
    CHECK(answer.is_error());
    CHECK(answer.text.size() < 250);
}

}  // namespace
}  // namespace nearkey::session_nearkey_test
