// Errors about a node of a cluster name it, and the slot of the command that failed: by its bytes,
// wherever it was when it failed.
#include "nearkey/upstream/error_place.h"

#include "connection_rig.h"

#include <doctest/doctest.h>

#include <fmt/format.h>
#include <string>
#include <utility>
#include <vector>

namespace nearkey::error_place_test {
namespace {

struct Errors final : ReplyReceiver {
    void on_reply_bytes(uint32_t, std::string_view) override {}
    void on_reply_end(uint32_t) override {}
    bool on_reply_void(uint32_t) override { return true; }
    void on_request_failed(uint32_t, std::string_view error) override { all.emplace_back(error); }

    std::vector<std::string> all;
};

// A node of a cluster in which the slot of a command is its length.
struct PlaceRig : ConnectionRig, RedirectEvents {
    PlaceRig() {
        context.redirects = this;
        url.path = directory / "valkey";
        make_ready();
    }
    int slot_of_command(std::string_view bytes) const override {
        return bytes.find("PING") == std::string_view::npos ? static_cast<int>(bytes.size()) : -1;
    }
    void on_redirect(Connection&, const Redirect&, UnsentRequest) override {}

    void ask(std::string_view line, RequestKind kind) {
        valkey.answers[std::string(line)] = FakeValkey::kSilent;
        connection->send({encoded(line), &errors, 1, kind});
        places.push_back(fmt::format("(slot {}, node {})", encoded(line).size(), url.path));
    }
    std::string node() const { return fmt::format("(node {})", url.path); }

    Errors errors;
    std::vector<std::string> places;
};

TEST_CASE("error place: it stands behind what happened, before what became of the request") {
    CHECK(with_place("UPSTREAMLOST it was lost; may have run", "slot 1, node a:1") ==
          "UPSTREAMLOST it was lost (slot 1, node a:1); may have run");
    CHECK(with_place("UPSTREAMDOWN it is gone", "node a:1") ==
          "UPSTREAMDOWN it is gone (node a:1)");
    CHECK(with_place("UPSTREAMDOWN a; b; not sent", "node a:1") ==
          "UPSTREAMDOWN a; b (node a:1); not sent");
    CHECK(with_place("UPSTREAMDOWN it is gone", "") == "UPSTREAMDOWN it is gone");
    CHECK(place_in_words(0, "a:1") == "slot 0, node a:1");
    CHECK(place_in_words(-1, "a:1") == "node a:1");
}

TEST_CASE("error place: of one server there is none") {
    ConnectionRig rig;
    CHECK(with_place("UPSTREAMLOST it was lost", rig.context, encoded("GET k")) ==
          "UPSTREAMLOST it was lost");
}

TEST_CASE("error place: the server's own words are left as they are") {
    PlaceRig rig;
    CHECK(with_place("ERR DB index is out of range", rig.context, encoded("GET k")) ==
          "ERR DB index is out of range");
}

TEST_CASE("error place: each request that is lost has its own slot") {
    PlaceRig rig;
    rig.ask("SET k v", RequestKind::Write);
    rig.ask("SET longer v", RequestKind::Write);
    rig.ask("SET the-longest v", RequestKind::Write);
    REQUIRE(rig.run_until_asked("SET the-longest v", 1));
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return rig.errors.all.size() == 3; }));
    for (size_t i = 0; i < 3; ++i) {
        CHECK(rig.errors.all[i] ==
              "UPSTREAMLOST the connection to Valkey was lost " + rig.places[i] + "; may have run");
    }
}

TEST_CASE("error place: of what has no key it is the node alone, also behind a long read") {
    PlaceRig rig;
    rig.options.retry_bytes_max = 10;
    rig.ask("GET k", RequestKind::Read);
    rig.ask("PING", RequestKind::Write);
    REQUIRE(rig.run_until_asked("PING", 1));
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return rig.errors.all.size() == 2; }));
    const std::string lost = "UPSTREAMLOST the connection to Valkey was lost ";
    CHECK(rig.errors.all[0] == lost + rig.places[0] + "; may have run");
    CHECK(rig.errors.all[1] == lost + rig.node() + "; may have run");
}

TEST_CASE("error place: each request that is late has its own slot, also behind answered ones") {
    PlaceRig rig;
    rig.options.request_timeout_ms = 50;
    Collector answered;
    rig.send(answered, 1, "SET answered v", RequestKind::Write);
    rig.ask("SET k v", RequestKind::Write);
    rig.ask("GET longer", RequestKind::Read);
    rig.ask("SET the-longest v", RequestKind::Write);
    REQUIRE(rig.run_until_told(answered, 1));
    REQUIRE(run_until(rig.loop, [&] {
        rig.connection->expire(rig.loop.now_ms());
        return rig.errors.all.size() == 3;
    }));
    for (size_t i = 0; i < 3; ++i) {
        CHECK(rig.errors.all[i] ==
              "UPSTREAMTIMEOUT Valkey did not answer in time " + rig.places[i] + "; may have run");
    }
    // A second call finds those that are late since, behind tombstones.
    rig.ask("SET last v", RequestKind::Write);
    REQUIRE(run_until(rig.loop, [&] {
        rig.connection->expire(rig.loop.now_ms());
        return rig.errors.all.size() == 4;
    }));
    CHECK(rig.errors.all[3].find(rig.places[3]) != std::string::npos);
}

TEST_CASE("error place: what waits for a connection has one, too") {
    PlaceRig rig;
    rig.options.queue_timeout_ms = 30;
    rig.redials = false;
    rig.url.path = rig.directory / "absent";
    rig.valkey.close_all();
    REQUIRE(run_until(rig.loop, [&] { return !rig.connection->is_ready(); }));
    rig.connection->send({encoded("SET k v"), &rig.errors, 1, RequestKind::Write});
    REQUIRE(run_until(rig.loop, [&] {
        rig.connection->expire(rig.loop.now_ms());
        return !rig.errors.all.empty();
    }));
    const std::string place =
        fmt::format("(slot {}, node {})", encoded("SET k v").size(), rig.url.path);
    CHECK(rig.errors.all[0].starts_with("UPSTREAMDOWN "));
    CHECK(rig.errors.all[0].ends_with(place + "; not sent"));
}

}  // namespace
}  // namespace nearkey::error_place_test
