#include "nearkey/session/reply_queue.h"

#include "../rounds.h"
#include "session_rig.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

namespace nearkey::reply_queue_test {
namespace {

using What = EarlyReply::What;

struct Taken {
    What what;
    std::string bytes;
};

std::optional<Taken> take_first(ReplyQueue& queue) {
    const auto early = queue.early_first();
    if (!early) return std::nullopt;
    Taken taken{early->what, std::string(early->bytes)};
    queue.drop_kept(queue.first());
    return taken;
}

// The connection owes nothing more: the test itself brings the replies, as from several.
void take_over_replies(SessionRig& rig, FakeClient& client) {
    rig.node->connections().for_each(
        [&](Connection& connection) { connection.forget(client.session); });
}

}  // namespace

TEST_CASE("reply queue: tickets are given in order, and closed in order") {
    ReplyQueue queue;
    CHECK(queue.owed() == 0);
    CHECK(queue.open(1) == 0);
    CHECK(queue.open(3) == 1);
    CHECK(queue.next() == 4);
    CHECK(queue.owed() == 4);
    CHECK(queue.is_first(0));
    queue.close_first();
    CHECK(queue.is_first(1));
    CHECK(queue.owed() == 3);
}

TEST_CASE("reply queue: what comes early is kept until its turn, and counted until it is taken") {
    ReplyQueue queue;
    queue.open(4);
    queue.keep(1, "+par");
    queue.keep(1, "t\r\n");
    queue.keep_end(1);
    queue.hold_answer(2, "-ERR\r\n");
    queue.hold_cut(3);
    const size_t bytes = queue.bytes();
    CHECK(bytes > 13);
    CHECK(queue.has_early());
    CHECK(!take_first(queue));
    queue.close_first();
    const auto first = take_first(queue);
    REQUIRE(first);
    CHECK(first->what == What::Whole);
    CHECK(first->bytes == "+part\r\n");
    CHECK(queue.bytes() < bytes);
    queue.close_first();
    const auto second = take_first(queue);
    REQUIRE(second);
    CHECK(second->what == What::Answer);
    CHECK(second->bytes == "-ERR\r\n");
    queue.close_first();
    const auto third = take_first(queue);
    REQUIRE(third);
    CHECK(third->what == What::Cut);
    CHECK(queue.bytes() == 0);
    CHECK(!queue.has_early());
}

TEST_CASE("reply queue: a part that came early goes on as the first") {
    ReplyQueue queue;
    queue.open(2);
    queue.keep(1, "$5\r\nhe");
    queue.close_first();
    const auto part = take_first(queue);
    REQUIRE(part);
    CHECK(part->what == What::Part);
    CHECK(part->bytes == "$5\r\nhe");
    CHECK(!take_first(queue));
}

TEST_CASE("reply queue: a reply that is void, or failed, leaves nothing of what was kept of it") {
    ReplyQueue queue;
    queue.open(3);
    queue.keep(1, "$5\r\nhe");
    queue.drop_kept(1);
    queue.drop_kept(2);
    CHECK(queue.bytes() == 0);
    queue.keep(1, "$5\r\nhe");
    queue.hold_answer(1, "-LOST\r\n");
    queue.close_first();
    const auto failure = take_first(queue);
    REQUIRE(failure);
    CHECK(failure->what == What::Answer);
    CHECK(failure->bytes == "-LOST\r\n");
    CHECK(queue.bytes() == 0);
}

// The replies come as several connections would bring them: each one's in order, cut anywhere, and
// the connections mixed in any way.
TEST_CASE("session: replies over several connections leave in the order of the commands") {
    for (uint32_t seed = 1; seed <= rounds(200); ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        const auto below = [&](size_t bound) { return random() % bound; };
        SessionRig rig;
        FakeClient& client = rig.make_ready();
        const size_t count = 2 + below(12);
        std::string expected;
        std::vector<std::vector<uint32_t>> connections(1 + below(4));
        std::vector<std::string> replies;
        rig.silence("GET k");
        for (uint32_t ticket = 0; ticket < count; ++ticket) {
            client.ask({"GET k"});
            connections[below(connections.size())].push_back(ticket);
            const std::string value(below(40), static_cast<char>('a' + ticket));
            replies.push_back("$" + std::to_string(value.size()) + "\r\n" + value + "\r\n");
            expected += replies.back();
        }
        take_over_replies(rig, client);
        std::vector<size_t> taken(count, 0);
        for (size_t left = count; left > 0;) {
            std::vector<uint32_t>& tickets = connections[below(connections.size())];
            if (tickets.empty()) continue;
            const uint32_t ticket = tickets.front();
            const std::string piece = replies[ticket].substr(taken[ticket], 1 + below(9));
            client.session.on_reply_bytes(ticket, piece);
            taken[ticket] += piece.size();
            if (below(20) == 0) {
                REQUIRE(client.session.on_reply_void(ticket));
                taken[ticket] = 0;
            }
            if (taken[ticket] < replies[ticket].size()) continue;
            client.session.on_reply_end(ticket);
            tickets.erase(tickets.begin());
            --left;
        }
        rig.settle();
        CHECK(client.output() == expected);
    }
}

TEST_CASE("session: what comes early counts as unsent") {
    SessionRig rig;
    rig.terms.limits.output_per_client_max = 10'000;
    FakeClient& client = rig.make_ready();
    rig.silence("GET k");
    client.ask({"GET k", "GET k"});
    take_over_replies(rig, client);
    client.session.on_reply_bytes(1, "$20000\r\n" + std::string(9'000, 'x'));
    CHECK(!rig.is_ended(client));
    client.session.on_reply_bytes(1, std::string(1'000, 'x'));
    CHECK(rig.is_ended(client));
    CHECK(rig.metrics.clients_closed_output_total == 1);
}

}  // namespace nearkey::reply_queue_test
