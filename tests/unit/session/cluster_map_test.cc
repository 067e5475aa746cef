// A map of the cluster that is applied in pieces, and what may happen between two of them; whose
// word about a slot is believed.
#include "cluster_rig.h"

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>

namespace nearkey::cluster_map_test {
namespace {

constexpr uint16_t kFirst = ClusterRig::kFirstPort;
constexpr uint16_t kOther = ClusterRig::kOtherPort;
constexpr uint16_t kThird = 7003;
// Of the first piece, and of the last one.
constexpr uint16_t kEarly = 100;
constexpr uint16_t kLate = 13000;
constexpr uint16_t kLast = kSlots - 1;
const std::string kAsked = "CLUSTER SLOTS";

struct MapRig : ClusterRig {
    MapRig() { client = &make_cluster_ready(); }
    uint16_t port_of(uint16_t slot) { return cluster->owner(slot).target().url.port; }
    bool run_until_of(uint16_t slot, uint16_t port) {
        return run_until(loop, [=, this] { return port_of(slot) == port; });
    }
    void tell(const std::string& map) { valkey.answers[kAsked] = other.answers[kAsked] = map; }
    // Each half is one node's.
    static std::string halves(uint16_t lower, uint16_t upper) {
        return fmt::format("*2\r\n{}{}", range(0, kSlots / 2 - 1, lower),
                           range(kSlots / 2, kSlots - 1, upper));
    }
    // The two change places. The first piece is applied, and perhaps the second.
    void run_into_the_middle() {
        tell(halves(kOther, kFirst));
        cluster->doubt();
        REQUIRE(run_until_of(kEarly, kOther));
        REQUIRE(port_of(kLate) == kOther);
    }
    bool run_to_the_end() { return run_until_of(kLast, kFirst); }
    // A node says so.
    void learn(uint16_t slot, uint16_t port) {
        const std::string words = sent_on("MOVED", slot, port);
        const auto redirect = read_redirect(std::string_view(words).substr(1, words.size() - 3));
        REQUIRE(redirect);
        cluster->follow(cluster->owner(slot).shared().primary(), *redirect, slot);
    }
    size_t primaries() const { return cluster->primaries.nodes().size(); }

    FakeClient* client;
};

}  // namespace

TEST_CASE("cluster map: what a node says between two pieces is newer than the map") {
    MapRig rig;
    rig.run_into_the_middle();
    rig.learn(kEarly, kThird);
    rig.learn(kLate, kThird);
    REQUIRE(rig.run_to_the_end());
    CHECK(rig.port_of(kEarly) == kThird);
    CHECK(rig.port_of(kEarly + 1) == kOther);
    CHECK(rig.port_of(kLate) == kThird);
    CHECK(rig.port_of(kLate + 1) == kFirst);
    // The map that is asked for behind that is newer still.
    CHECK(rig.run_until_of(kEarly, kOther));
    CHECK(rig.run_until_of(kLate, kFirst));
}

TEST_CASE("cluster map: each piece is a version of its own") {
    MapRig rig;
    rig.run_into_the_middle();
    const uint32_t version = rig.cluster->version();
    CHECK(rig.cluster->changed(kEarly) <= version);
    REQUIRE(rig.run_to_the_end());
    // Whoever was owed nothing in the middle knows the owners of then.
    CHECK(rig.cluster->changed(kLate) > version);
    CHECK(rig.cluster->changed(kEarly) <= version);
}

TEST_CASE("cluster map: what is stored of a slot is void with its piece") {
    MapRig rig;
    const std::string early = ClusterRig::key_of(kEarly);
    const std::string late = ClusterRig::key_of(kLate);
    rig.store(*rig.client, early);
    rig.store(*rig.client, late);
    rig.run_into_the_middle();
    CHECK(rig.outcome(early) == NearCache::Outcome::Miss);
    CHECK(rig.outcome(late) == NearCache::Outcome::Hit);
    REQUIRE(rig.run_to_the_end());
    CHECK(rig.outcome(late) == NearCache::Outcome::Miss);
}

TEST_CASE("cluster map: commands about all nodes go to each that owns a slot by now") {
    MapRig rig;
    REQUIRE(rig.primaries() == 2);
    rig.tell(fmt::format("*2\r\n{}{}", ClusterRig::range(0, kLast - 1, kThird),
                         ClusterRig::range(kLast, kLast, kOther)));
    rig.cluster->doubt();
    REQUIRE(rig.run_until_of(kEarly, kThird));
    REQUIRE(rig.port_of(kLate) == kOther);
    const auto& nodes = rig.cluster->primaries.nodes();
    for (const uint16_t slot : {kEarly, kLate})
        CHECK(std::count(nodes.begin(), nodes.end(), &rig.cluster->owner(slot)) == 1);
    REQUIRE(rig.run_until_of(kLast - 1, kThird));
    CHECK(rig.primaries() == 2);
}

TEST_CASE("cluster map: a doubt in the middle of a map asks again behind it") {
    MapRig rig;
    // The answer is late, so that the next question is due at once.
    rig.tell(std::string(FakeValkey::kSilent));
    const size_t asked = rig.valkey.times_asked(kAsked) + 1;
    rig.cluster->doubt();
    REQUIRE(rig.run_until_asked(kAsked, asked));
    const uint64_t due_ms = rig.loop.now_ms() + 100;
    REQUIRE(run_until(rig.loop, [&] { return rig.loop.now_ms() > due_ms; }));
    const std::string map = MapRig::halves(kOther, kFirst);
    rig.tell(map);
    rig.valkey.send(rig.valkey.peer_of(kAsked), map);
    REQUIRE(rig.run_until_of(kEarly, kOther));
    REQUIRE(rig.port_of(kLate) == kOther);
    rig.cluster->doubt();
    rig.cluster->apply_options();
    REQUIRE(rig.run_to_the_end());
    CHECK(rig.valkey.times_asked(kAsked) == asked);
    CHECK(rig.run_until_asked(kAsked, asked + 1));
}

TEST_CASE("cluster map: a cluster that is stopped in the middle of a map stays as it is") {
    MapRig rig;
    rig.run_into_the_middle();
    const uint32_t changed = rig.cluster->changed(kLate);
    rig.clients.clear();
    rig.cluster->stop();
    for (int i = 0; i < 5; ++i)
        rig.settle();
    CHECK(rig.cluster->members().empty());
    CHECK(rig.cluster->changed(kLate) == changed);
}

TEST_CASE("cluster map: a node's own word takes no slot of another's") {
    MapRig rig;
    // The other is asked, for a node has named it, and says that it owns everything.
    rig.other.answers[kAsked] = "*1\r\n" + ClusterRig::range(0, kLast, kOther);
    const size_t of_other = rig.other.times_asked(kAsked);
    const size_t of_seed = rig.valkey.times_asked(kAsked);
    rig.learn(kLast, kOther);
    REQUIRE(run_until(rig.loop, [&] { return rig.other.times_asked(kAsked) > of_other; }));
    // Another one is asked at once, and does not say so.
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked(kAsked) > of_seed; }));
    for (int i = 0; i < 5; ++i)
        rig.settle();
    CHECK(rig.other.times_asked(kAsked) == of_other + 1);
    CHECK(rig.port_of(kEarly) == kFirst);
    // It says so, too.
    rig.tell("*1\r\n" + ClusterRig::range(0, kLast, kOther));
    rig.cluster->doubt();
    CHECK(rig.run_until_of(kEarly, kOther));
}

TEST_CASE("cluster map: a node's own word holds where no other can be asked") {
    MapRig rig;
    rig.other.answers[kAsked] = "*1\r\n" + ClusterRig::range(0, kLast, kOther);
    rig.valkey.stop_listening();
    rig.valkey.close_all();
    CHECK(rig.run_until_of(kEarly, kOther));
}

TEST_CASE("cluster map: a node takes slots by its own word that nobody owns") {
    MapRig rig;
    rig.tell("*1\r\n" + ClusterRig::range(kEarly + 1, kLast, kOther));
    rig.cluster->doubt();
    REQUIRE(run_until(rig.loop, [&] { return &rig.cluster->owner(kEarly) == rig.node.get(); }));
    rig.other.answers[kAsked] = "*1\r\n" + ClusterRig::range(0, kLast, kOther);
    rig.learn(kLast, kOther);
    CHECK(rig.run_until_of(kEarly, kOther));
}

}  // namespace nearkey::cluster_map_test
