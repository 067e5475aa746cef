// A connection to a node of a cluster: a command that was not run is taken off, with its bytes, and
// everything else reaches its receiver as ever. Errors are cut at each byte.
#include "connection_rig.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace nearkey::redirected_request_test {
namespace {

struct ClusterRig : ConnectionRig, RedirectEvents {
    ClusterRig() {
        context.redirects = this;
        make_ready();
    }

    int slot_of_command(std::string_view) const override { return -1; }
    void on_redirect(Connection&, const Redirect& redirect, UnsentRequest request) override {
        words.emplace_back(redirect.words);
        requests.push_back(std::move(request));
    }
    // Sends `bytes` for `command`, in two pieces.
    void answer_in_pieces(std::string_view command, std::string_view bytes, size_t cut) {
        REQUIRE(run_until_asked(command, 1));
        const size_t peer = valkey.peer_of(command);
        valkey.send(peer, bytes.substr(0, cut));
        run_until(loop, [&] { return valkey.unread(peer) == 0; });
        valkey.send(peer, bytes.substr(cut));
    }

    Collector receiver;
    std::vector<std::string> words;
    std::vector<UnsentRequest> requests;
};

TEST_CASE("redirected request: read and write are taken off with their bytes") {
    ClusterRig rig;
    rig.valkey.answers["SET k v"] = "-MOVED 12539 10.0.0.2:7000\r\n";
    rig.valkey.answers["GET k"] = "-ASK 12539 10.0.0.3:7000\r\n";
    rig.send(rig.receiver, 1, "SET k v", RequestKind::Write);
    rig.send(rig.receiver, 2, "GET k");
    rig.send(rig.receiver, 3, "GET other");
    REQUIRE(rig.run_until_told(rig.receiver, 1));
    CHECK(rig.receiver.told == ToldWords{"3 +GET other"});
    REQUIRE(rig.requests.size() == 2);
    CHECK(rig.words[0] == "-MOVED 12539 10.0.0.2:7000\r\n");
    CHECK(rig.requests[0].bytes == encoded("SET k v"));
    CHECK(rig.requests[0].request.ticket == 1);
    CHECK(rig.requests[0].request.receiver == &rig.receiver);
    CHECK(rig.requests[1].bytes == encoded("GET k"));
    CHECK(rig.metrics.in_flight == 0);
}

TEST_CASE("redirected request: however long a read is, it goes on; lost, it is not sent again") {
    ClusterRig rig;
    const std::string longer = "GET " + std::string(rig.options.retry_bytes_max, 'k');
    rig.valkey.answers[longer] = "-MOVED 12539 10.0.0.2:7000\r\n";
    rig.send(rig.receiver, 1, longer);
    REQUIRE(run_until(rig.loop, [&] { return rig.requests.size() == 1; }));
    CHECK(rig.requests[0].bytes == encoded(longer));
    CHECK(rig.receiver.told.empty());
    rig.valkey.answers[longer] = FakeValkey::kSilent;
    rig.send(rig.receiver, 2, longer);
    REQUIRE(rig.run_until_asked(longer, 2));
    rig.valkey.close_all();
    REQUIRE(rig.run_until_told(rig.receiver, 1));
    CHECK(rig.receiver.told == ToldWords{"2 failed UPSTREAMLOST"});
}

TEST_CASE("redirected request: its words may come in pieces") {
    const std::string words = "-MOVED 3 127.0.0.1:7000\r\n";
    for (size_t cut = 1; cut < words.size(); ++cut) {
        CAPTURE(cut);
        ClusterRig rig;
        rig.valkey.answers["GET k"] = FakeValkey::kSilent;
        rig.send(rig.receiver, 1, "GET k");
        rig.answer_in_pieces("GET k", words, cut);
        REQUIRE(run_until(rig.loop, [&] { return !rig.words.empty(); }));
        CHECK(rig.words[0] == words);
        CHECK(rig.receiver.told.empty());
        CHECK(rig.receiver.part.empty());
    }
}

TEST_CASE("redirected request: another error is its receiver's, in pieces too") {
    for (const std::string words : {"-ERR no\r\n", "-WRONGTYPE Operation\r\n", "-MOVEDX x y\r\n"}) {
        for (size_t cut = 1; cut < words.size(); ++cut) {
            CAPTURE(cut);
            ClusterRig rig;
            rig.valkey.answers["GET k"] = FakeValkey::kSilent;
            rig.send(rig.receiver, 1, "GET k");
            rig.answer_in_pieces("GET k", words, cut);
            REQUIRE(rig.run_until_told(rig.receiver, 1));
            CHECK(rig.receiver.told == ToldWords{"1 " + words.substr(0, words.size() - 2)});
            CHECK(rig.words.empty());
        }
    }
}

TEST_CASE("redirected request: an error without end is passed on") {
    ClusterRig rig;
    const std::string words = "-MOVED " + std::string(100'000, '1') + "\r\n";
    rig.valkey.answers["GET k"] = words;
    rig.send(rig.receiver, 1, "GET k");
    REQUIRE(rig.run_until_told(rig.receiver, 1));
    CHECK(rig.receiver.told == ToldWords{"1 " + words.substr(0, words.size() - 2)});
}

TEST_CASE("redirected request: nobody waits for that of a receiver that has gone") {
    ClusterRig rig;
    rig.valkey.answers["SET k v"] = FakeValkey::kSilent;
    rig.send(rig.receiver, 1, "SET k v", RequestKind::Write);
    REQUIRE(rig.run_until_asked("SET k v", 1));
    rig.connection->forget(rig.receiver);
    rig.valkey.send(rig.valkey.peer_of("SET k v"), "-MOVED 3 127.0.0.1:7000\r\n");
    Collector other;
    rig.send(other, 9, "GET other");
    REQUIRE(rig.run_until_told(other, 1));
    CHECK(rig.requests.empty());
    CHECK(rig.receiver.told.empty());
    CHECK(rig.metrics.tombstones == 0);
}

TEST_CASE("redirected request: a lost write has run, perhaps, and is not sent again") {
    ClusterRig rig;
    rig.valkey.answers["SET k v"] = FakeValkey::kSilent;
    rig.send(rig.receiver, 1, "SET k v", RequestKind::Write);
    REQUIRE(rig.run_until_asked("SET k v", 1));
    rig.valkey.close_all();
    REQUIRE(rig.run_until_told(rig.receiver, 1));
    CHECK(rig.receiver.told == ToldWords{"1 failed UPSTREAMLOST"});
    CHECK(rig.valkey.times_asked("SET k v") == 1);
}

TEST_CASE("redirected request: a lease believes nothing, for a script may say it") {
    ClusterRig rig;
    rig.connection->close("another is made");
    rig.make_connection(Protocol::Resp2, 0);
    rig.connection->use().set_role(ConnectionUse::Role::Leased);
    rig.make_ready();
    rig.valkey.answers["EVAL s 0"] = "-MOVED 3 127.0.0.1:7000\r\n";
    rig.send(rig.receiver, 1, "EVAL s 0", RequestKind::Write);
    REQUIRE(rig.run_until_told(rig.receiver, 1));
    CHECK(rig.receiver.told == ToldWords{"1 -MOVED 3 127.0.0.1:7000"});
    CHECK(rig.requests.empty());
}

TEST_CASE("redirected request: sent again it keeps its place and its time") {
    ClusterRig rig;
    rig.valkey.answers["SET k v"] = "-MOVED 3 127.0.0.1:7000\r\n";
    rig.send(rig.receiver, 1, "SET k v", RequestKind::Write);
    REQUIRE(run_until(rig.loop, [&] { return rig.requests.size() == 1; }));
    const uint64_t deadline_ms = rig.requests[0].request.deadline_ms;
    rig.valkey.answers["SET k v"] = "+OK\r\n";
    rig.connection->send_again(rig.requests[0]);
    rig.send(rig.receiver, 2, "GET k");
    REQUIRE(rig.run_until_told(rig.receiver, 2));
    CHECK(rig.receiver.told == ToldWords{"1 +OK", "2 +GET k"});
    CHECK(deadline_ms <= rig.loop.now_ms() + rig.options.request_timeout_ms);
}

}  // namespace
}  // namespace nearkey::redirected_request_test
