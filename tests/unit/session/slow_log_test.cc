// The slow log by itself, and what a session enters in it.
#include "nearkey/session/slow_log.h"

#include "session_rig.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <string>

namespace nearkey::slow_log_test {
namespace {

struct SlowRig : SessionRig {
    FakeClient& make_ready_with(const SlowLogOptions& chosen) {
        slow_options = chosen;
        slow = std::make_unique<SlowLog>(slow_options, key_hash, log, metrics);
        FakeClient& client = make_ready();
        context->slow_log = slow.get();
        // A threshold of a millisecond is the least that can be configured; here all are slow.
        node->latency().set_slow_us(0);
        return client;
    }

    KeyHash key_hash;
    SlowLogOptions slow_options;
    std::unique_ptr<SlowLog> slow;
};

TEST_CASE("slow log: it holds the newest entries, numbered from 1") {
    SessionRig rig;
    const KeyHash key_hash;
    SlowLog slow({.threshold_ms = 10, .entries_max = 3, .log = false}, key_hash, rig.log,
                 rig.metrics);
    CHECK(slow.threshold_us() == 10'000);
    for (uint32_t i = 0; i < 5; ++i) {
        SlowEntry entry;
        entry.request = i;
        slow.add(std::move(entry));
    }
    REQUIRE(slow.entries().size() == 3);
    CHECK(slow.entries().front().id == 3);
    CHECK(slow.entries().back().id == 5);
    CHECK(slow.entries().back().request == 4);
    CHECK(rig.metrics.slow_requests_total == 5);
    const SlowLog none({.threshold_ms = 0, .entries_max = 3, .log = false}, key_hash, rig.log,
                       rig.metrics);
    CHECK(none.threshold_us() == UINT32_MAX);
}

TEST_CASE("slow log: an entry has the session, the request's number and the command") {
    SlowRig rig;
    FakeClient& client = rig.make_ready_with({});
    client.ask({local("a"), "GET k", "SET other v"});
    REQUIRE(rig.run_until_output(client, local_answer("a") + "+GET k\r\n+SET other v\r\n"));
    REQUIRE(rig.slow->entries().size() == 2);
    const SlowEntry get = rig.slow->entries()[0];
    CHECK(get.session == 1);
    CHECK(get.request == 1);
    CHECK(get.command == "get");
    CHECK(get.key_hash == 0);  // the fake server does not say where keys stand
    CHECK(get.route == SlowEntry::Route::Shared);
    CHECK(get.total_us >= get.queue_us + get.upstream_us + get.write_us);
    CHECK(rig.slow->entries()[1].request == 2);
}

TEST_CASE("slow log: it tells how long the client took to take the reply") {
    SlowRig rig;
    FakeClient& client = rig.make_ready_with({});
    client.socket.room = 0;
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.settle();
    CHECK(rig.slow->entries().empty());
    const uint32_t before = Loop::now_us();
    REQUIRE(run_until(rig.loop, [&] { return Loop::now_us() - before > 20'000; }));
    client.socket.room = SIZE_MAX;
    client.session.on_writable();
    REQUIRE(rig.slow->entries().size() == 1);
    CHECK(rig.slow->entries()[0].write_us >= 20'000);
}

TEST_CASE("slow log: who leaves before a reply was written is entered all the same") {
    SlowRig rig;
    FakeClient& client = rig.make_ready_with({});
    client.socket.room = 0;
    client.ask({"GET k"});
    REQUIRE(rig.run_until_asked("GET k", 1));
    rig.settle();
    client.session.abort();
    CHECK(rig.slow->entries().size() == 1);
}

TEST_CASE("slow log: a request that fails for want of an answer is entered as such") {
    SlowRig rig;
    rig.options.request_timeout_ms = 30;
    rig.silence("GET k");
    FakeClient& client = rig.make_ready_with({});
    client.ask({"GET k"});
    REQUIRE(run_until(rig.loop, [&] { return client.output().starts_with("-UPSTREAMTIMEOUT"); }));
    REQUIRE(rig.slow->entries().size() == 1);
    CHECK(rig.slow->entries()[0].has_failed);
    CHECK(rig.slow->entries()[0].upstream_us >= 10'000);
    const auto failed = static_cast<size_t>(RequestOutcome::Failed);
    uint64_t count = 0;
    for (const auto& family : rig.metrics.histograms.request)
        count += family[failed].count();
    CHECK(count == 1);
}

TEST_CASE("slow log: a command that waits because it was told to is not slow") {
    SlowRig rig;
    FakeClient& client = rig.make_ready_with({});
    client.ask({"BLPOP k 0"});
    REQUIRE(rig.run_until_output(client, "+BLPOP k 0\r\n"));
    CHECK(rig.slow->entries().empty());
}

// A tag as bytes, which may be none that a line of words has.
std::string tag_command(const std::string& tag) {
    return "*3\r\n$7\r\nNEARKEY\r\n$3\r\nTAG\r\n$" + std::to_string(tag.size()) + "\r\n" + tag +
           "\r\n";
}

TEST_CASE("slow log: an entry has the tag that stood before its command") {
    SlowRig rig;
    rig.silence("GET a");
    rig.silence("GET b");
    rig.silence("GET c");
    FakeClient& client = rig.make_ready_with({});
    client.ask({"GET a", "NEARKEY TAG one", "GET b", "NEARKEY TAG two|2", "GET c"});
    REQUIRE(rig.run_until_asked("GET c", 1));
    rig.valkey.send(0, "+a\r\n+b\r\n+c\r\n");
    REQUIRE(rig.run_until_output(client, "+a\r\n+OK\r\n+b\r\n+OK\r\n+c\r\n"));
    client.ask({"GET d"});
    REQUIRE(run_until(rig.loop, [&] { return client.output().ends_with("+GET d\r\n"); }));
    client.ask({"RESET", "GET e", "NEARKEY TAG three"});
    client.send(tag_command("") + encoded("GET f"));
    REQUIRE(run_until(rig.loop, [&] { return client.output().ends_with("+GET f\r\n"); }));
    std::string tags;
    for (const SlowEntry& entry : rig.slow->entries())
        tags += entry.command == "get" ? entry.tag + "," : "";
    CHECK(tags == ",one,two|2,two|2,,,");
}

TEST_CASE("slow log: a tag is a word of bounded length") {
    SlowRig rig;
    FakeClient& client = rig.make_ready_with({});
    const std::string longest(RequestTags::kLengthMax, 'x');
    client.send(tag_command(longest));
    REQUIRE(rig.run_until_output(client, "+OK\r\n"));
    const std::string refusal =
        "-ERR NEARKEY TAG takes up to 128 printable characters, no spaces\r\n";
    std::string expected = "+OK\r\n";
    for (const std::string& tag : {longest + "x", std::string("a b"), std::string("\xc3\xa9"),
                                   std::string(1, '\0'), std::string("a\n"), std::string("\x7f")}) {
        CAPTURE(tag);
        client.send(tag_command(tag));
        expected += refusal;
        CHECK(rig.run_until_output(client, expected));
    }
    CHECK(client.session.tag() == longest);
}

TEST_CASE("slow log: more tags than are kept wait for the replies before them") {
    SlowRig rig;
    rig.silence("GET k");
    FakeClient& client = rig.make_ready_with({.entries_max = 1000});
    const size_t kept = RequestTags::kKeptMax;
    const size_t count = 2 * kept;
    std::string commands;
    for (size_t i = 0; i < count; ++i)
        commands += tag_command("t" + std::to_string(i)) + encoded("GET k");
    client.send(commands);
    for (const size_t asked : {kept, count}) {
        REQUIRE(rig.run_until_asked("GET k", asked));
        rig.settle();
        CHECK(rig.valkey.times_asked("GET k") == asked);
        for (size_t i = 0; i < kept; ++i)
            rig.valkey.send(0, "+k\r\n");
    }
    REQUIRE(run_until(rig.loop, [&] { return rig.slow->entries().size() == count; }));
    for (size_t i = 0; i < count; ++i)
        CHECK(rig.slow->entries()[i].tag == "t" + std::to_string(i));
}

TEST_CASE("slow log: where it is told to, each is a line in the log, with the key's hash alone") {
    SlowRig rig;
    const int log = memfd_create("log", MFD_CLOEXEC);
    REQUIRE(log >= 0);
    REQUIRE(dup3(log, rig.null_fd, O_CLOEXEC) == rig.null_fd);
    FakeClient& client = rig.make_ready_with({.threshold_ms = 1, .entries_max = 0, .log = true});
    client.ask({"GET secret"});
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.slow_requests_total == 1; }));
    CHECK(rig.slow->entries().empty());
    std::string lines(65536, '\0');
    const ssize_t size = pread(log, lines.data(), lines.size(), 0);
    close(log);
    REQUIRE(size > 0);
    lines.resize(static_cast<size_t>(size));
    const size_t start = lines.find("\"event\":\"slow_request\"");
    REQUIRE(start != std::string::npos);
    for (const char* word : {"\"slow_id\":1", "\"command\":\"get\"", "\"route\":\"shared\"",
                             "\"key_hash\":", "\"total_us\":"}) {
        CAPTURE(word);
        CHECK(lines.find(word, start) != std::string::npos);
    }
    CHECK(lines.find("secret") == std::string::npos);
}

}  // namespace
}  // namespace nearkey::slow_log_test
