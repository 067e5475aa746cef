// Which keys Valkey is told of, when, and over which connection.
#include "nearkey/upstream/touch_reporter.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace nearkey::touch_reporter_test {
namespace {

std::string memory_report(const std::string& maxmemory, const std::string& policy) {
    const std::string text =
        "# Memory\r\nmaxmemory:" + maxmemory + "\r\nmaxmemory_policy:" + policy + "\r\n";
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

// How many of 100,000 hits are noted.
size_t due(TouchReporter& touch) {
    size_t count = 0;
    for (int i = 0; i < 100'000; ++i) {
        if (!touch.is_due(0)) continue;
        ++count;
        touch.schedule();
        touch.note({0}, "k" + std::to_string(i));
    }
    return count;
}

// All that any peer was asked for and that begins with TOUCH.
std::vector<std::string> touches(const FakeValkey& valkey) {
    std::vector<std::string> found;
    for (size_t peer = 0; peer < valkey.peer_count(); ++peer) {
        for (const std::string& command : valkey.asked(peer)) {
            if (command.starts_with("TOUCH")) found.push_back(command);
        }
    }
    return found;
}

// Until the server's policy is known.
void make_ready(NodeRig& rig, const std::string& report) {
    rig.valkey.answers["INFO memory"] = report;
    rig.make_ready_with_cache();
    rig.tracked(0);
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("INFO memory") > 0; }));
    // Its answer has come when that to a later command over the same connection has.
    Collector receiver;
    rig.send(*rig.node->shared().acquire(Protocol::Resp2, 0), receiver, "ECHO later");
    REQUIRE(rig.run_until_told(receiver, 1));
}

}  // namespace

TEST_CASE("touch: a key is told in its datarig, over a connection that does not track it") {
    NodeRig rig;
    make_ready(rig, memory_report("1000000", "allkeys-lru"));
    rig.tracked(5);
    CHECK(rig.metrics.near_cache_touching == 1);
    rig.node->coherence().touch().note({5}, "k");
    rig.node->coherence().touch().note({5}, "k");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("TOUCH k") == 1; }));
    const std::vector<std::string>& asked = rig.valkey.asked(rig.valkey.peer_of("TOUCH k"));
    CHECK(std::find(asked.begin(), asked.end(), "SELECT 5") != asked.end());
    const auto touch = std::find(asked.begin(), asked.end(), "TOUCH k");
    REQUIRE(touch != asked.begin());
    CHECK(*(touch - 1) == "CLIENT CACHING NO");
    CHECK(rig.metrics.near_cache_touched_total == 1);
}

TEST_CASE("touch: hits are sampled evenly, and a batch has a limit") {
    NodeRig rig;
    rig.near.touch_keys_max = 3;
    make_ready(rig, memory_report("1000000", "allkeys-lfu"));
    CHECK(due(rig.node->coherence().touch()) <= 4);
    REQUIRE(run_until(rig.loop, [&] { return !touches(rig.valkey).empty(); }));
    const std::string first = touches(rig.valkey).front();
    CHECK(std::count(first.begin(), first.end(), ' ') == 3);
}

TEST_CASE("touch: a server that does not evict by use is told nothing") {
    for (const auto& report :
         {memory_report("1000000", "noeviction"), memory_report("1000000", "allkeys-random"),
          memory_report("1000000", "volatile-ttl"), memory_report("0", "allkeys-lru")}) {
        NodeRig rig;
        make_ready(rig, report);
        CHECK(rig.metrics.near_cache_touching == 0);
        CHECK(due(rig.node->coherence().touch()) == 0);
    }
}

TEST_CASE("touch: who may not ask for the policy tells of hits all the same") {
    NodeRig rig;
    make_ready(rig, "-NOPERM this user has no permissions to run the 'info' command\r\n");
    CHECK(rig.metrics.near_cache_touching == 1);
    CHECK(due(rig.node->coherence().touch()) > 0);
}

TEST_CASE("touch: one refusal ends it") {
    NodeRig rig;
    rig.valkey.answers["TOUCH k"] = "-NOPERM this user has no permissions to run 'touch'\r\n";
    make_ready(rig, memory_report("1000000", "allkeys-lru"));
    rig.node->coherence().touch().note({0}, "k");
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.near_cache_touching == 0; }));
    CHECK(due(rig.node->coherence().touch()) == 0);
    const uint64_t beats = rig.metrics.heartbeats_total;
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.heartbeats_total > beats + 10; }));
    CHECK(touches(rig.valkey).size() == 1);
    CHECK(rig.metrics.near_cache_touching == 0);
}

TEST_CASE("touch: while one is unanswered there is no other") {
    NodeRig rig;
    make_ready(rig, memory_report("1000000", "allkeys-lru"));
    // Whatever is answered behind it would be taken for its answer.
    for (const char* command : {"TOUCH k", "PING", "ECHO mark", "CLIENT CACHING NO", "INFO memory",
                                "INFO commandstats keyspace"})
        rig.valkey.answers[command] = FakeValkey::kSilent;
    rig.node->coherence().touch().note({0}, "k");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("TOUCH k") == 1; }));
    Collector silent;
    Connection& connection = *rig.node->shared().find_ready(Protocol::Resp3, 0);
    for (int i = 0; i < 3; ++i) {
        rig.node->coherence().touch().note({0}, "other");
        rig.node->coherence().touch().beat(*rig.node->shared().find_ready(Protocol::Resp2, 0), 0);
    }
    rig.send(connection, silent, "ECHO mark");
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("ECHO mark") == 1; }));
    CHECK(touches(rig.valkey).size() == 1);
    rig.valkey.send(rig.valkey.peer_of("TOUCH k"), ":1\r\n");
    REQUIRE(run_until(rig.loop, [&] {
        rig.node->coherence().touch().note({0}, "other");
        return rig.valkey.times_asked("TOUCH other") == 1;
    }));
    connection.forget(silent);
}

TEST_CASE("touch: switched off, it neither asks nor tells") {
    NodeRig rig;
    rig.near.touch = false;
    rig.valkey.answers["INFO memory"] = memory_report("1000000", "allkeys-lru");
    rig.make_ready_with_cache();
    rig.tracked(0);
    const uint64_t beats = rig.metrics.heartbeats_total;
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.heartbeats_total > beats + 10; }));
    CHECK(rig.valkey.times_asked("INFO memory") == 0);
    CHECK(due(rig.node->coherence().touch()) == 0);
}

}  // namespace nearkey::touch_reporter_test
