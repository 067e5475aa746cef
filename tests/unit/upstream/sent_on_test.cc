// The order of requests that nodes of a cluster have sent on.
#include "nearkey/upstream/sent_on.h"

#include "collector.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

namespace nearkey::sent_on_test {
namespace {

struct Rig {
    // A request of the receiver that a node did not run.
    UnsentRequest request(uint32_t ticket, Collector& of) {
        UnsentRequest made{std::to_string(ticket), {}, 0, true};
        made.request.receiver = &of;
        made.request.ticket = ticket;
        made.request.replies = 1;
        made.request.timing.series = RequestTiming::kUncounted;
        return made;
    }
    UnsentRequest taken(uint32_t ticket, int slot, Collector& of) {
        UnsentRequest made = request(ticket, of);
        sent_on.take(made, slot);
        return made;
    }
    // Its node sends it on once more.
    UnsentRequest again(const std::string& name, int slot) {
        UnsentRequest made = in_flight.at(name);
        in_flight.erase(name);
        sent_on.take(made, slot);
        return made;
    }
    void answer(const std::string& name, const std::string& reply = "+OK\r\n") {
        ReplyReceiver& hop = *in_flight.at(name).request.receiver;
        in_flight.erase(name);
        hop.on_reply_bytes(0, reply);
        hop.on_reply_end(0);
    }

    Collector receiver;
    Collector other;
    std::vector<std::string> sent;  // "2 to 7", in order
    std::map<std::string, UnsentRequest> in_flight;
    bool fails = false;
    Metrics metrics;
    SentOn sent_on{[this](uint16_t node, const UnsentRequest& request, bool is_asking) {
                       sent.push_back(request.bytes + " to " + std::to_string(node) +
                                      (is_asking ? " asking" : ""));
                       if (fails) {
                           request.request.receiver->on_request_failed(0, "UPSTREAMDOWN no");
                       } else {
                           in_flight.insert_or_assign(request.bytes, request);
                       }
                   },
                   metrics};
};

TEST_CASE("sent on: all to one node go at once, and their replies by their tickets") {
    Rig rig;
    for (uint32_t ticket = 1; ticket <= 3; ++ticket)
        rig.sent_on.send(rig.taken(ticket, 9, rig.receiver), 4, false);
    CHECK(rig.sent == std::vector<std::string>{"1 to 4", "2 to 4", "3 to 4"});
    rig.answer("1");
    rig.answer("2", "-ERR no\r\n");
    rig.answer("3");
    CHECK(rig.receiver.told == ToldWords{"1 +OK", "2 -ERR no", "3 +OK"});
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
}

TEST_CASE("sent on: one for another node waits for those before it") {
    Rig rig;
    rig.sent_on.send(rig.taken(1, 9, rig.receiver), 4, false);
    rig.sent_on.send(rig.taken(2, 9, rig.receiver), 5, true);
    CHECK(rig.sent == std::vector<std::string>{"1 to 4"});
    CHECK(rig.metrics.upstream_retained_bytes == 1);
    rig.answer("1");
    CHECK(rig.sent == std::vector<std::string>{"1 to 4", "2 to 5 asking"});
}

TEST_CASE("sent on: two hops against one keep the order") {
    Rig rig;
    rig.sent_on.send(rig.taken(1, 9, rig.receiver), 4, false);
    rig.sent_on.send(rig.taken(2, 9, rig.receiver), 5, false);
    rig.sent_on.send(rig.taken(3, 9, rig.receiver), 5, false);
    rig.sent_on.send(rig.again("1", 9), 5, false);
    CHECK(rig.sent == std::vector<std::string>{"1 to 4", "1 to 5", "2 to 5", "3 to 5"});
}

TEST_CASE("sent on: other slots and other receivers wait for nobody") {
    Rig rig;
    rig.sent_on.send(rig.taken(1, 9, rig.receiver), 4, false);
    rig.sent_on.send(rig.taken(2, 8, rig.receiver), 5, false);
    rig.sent_on.send(rig.taken(3, 9, rig.other), 5, false);
    CHECK(rig.sent == std::vector<std::string>{"1 to 4", "2 to 5", "3 to 5"});
}

TEST_CASE("sent on: what is delayed holds back what comes behind it") {
    Rig rig;
    const UnsentRequest first = rig.taken(1, 9, rig.receiver);
    rig.sent_on.delay(first);
    rig.sent_on.send(rig.taken(2, 9, rig.receiver), 4, false);
    CHECK(rig.sent.empty());
    rig.sent_on.send(first, 4, false);
    CHECK(rig.sent == std::vector<std::string>{"1 to 4", "2 to 4"});
}

TEST_CASE("sent on: those that fail at once let the next go") {
    Rig rig;
    const UnsentRequest first = rig.taken(1, 9, rig.receiver);
    rig.sent_on.delay(first);
    for (uint32_t ticket = 2; ticket <= 4; ++ticket)
        rig.sent_on.send(rig.taken(ticket, 9, rig.receiver), 5, false);
    rig.fails = true;
    rig.sent_on.send(first, 4, false);
    CHECK(rig.sent == std::vector<std::string>{"1 to 4", "2 to 5", "3 to 5", "4 to 5"});
    CHECK(rig.receiver.told == ToldWords{"1 failed UPSTREAMDOWN", "2 failed UPSTREAMDOWN",
                                         "3 failed UPSTREAMDOWN", "4 failed UPSTREAMDOWN"});
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
}

TEST_CASE("sent on: nothing reaches a receiver that has gone") {
    Rig rig;
    rig.sent_on.send(rig.taken(1, 9, rig.receiver), 4, false);
    rig.sent_on.send(rig.taken(2, 9, rig.receiver), 5, false);
    rig.sent_on.forget(rig.receiver);
    CHECK(rig.sent_on.size() == 1);
    rig.answer("1");
    CHECK(rig.sent == std::vector<std::string>{"1 to 4"});
    CHECK(rig.receiver.told.empty());
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
}

TEST_CASE("sent on: a receiver that goes within its own reply has gone once") {
    // One that takes too little is closed by the reply that was too much.
    struct Leaver final : ReplyReceiver {
        void on_reply_bytes(uint32_t, std::string_view) override { sent_on->forget(*this); }
        void on_reply_end(uint32_t) override {}
        bool on_reply_void(uint32_t) override { return false; }
        void on_request_failed(uint32_t, std::string_view) override {}
        SentOn* sent_on = nullptr;
    };
    Rig rig;
    Leaver leaver;
    leaver.sent_on = &rig.sent_on;
    UnsentRequest request = rig.request(1, rig.receiver);
    request.request.receiver = &leaver;
    rig.sent_on.take(request, 9);
    ReplyReceiver& hop = *request.request.receiver;
    hop.on_reply_bytes(0, "-TRYAGAIN not run\r\n");
    hop.on_reply_end(0);
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
    CHECK(!rig.sent_on.has_of(leaver));
}

TEST_CASE("sent on: one that nobody is known to own is under way when it is sent") {
    Rig rig;
    rig.sent_on.send(rig.taken(1, 9, rig.receiver), UINT16_MAX, false);
    rig.sent_on.forget(rig.receiver);
    // Its reply ends it, so it is there until then.
    CHECK(rig.sent_on.size() == 1);
    rig.answer("1");
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
}

TEST_CASE("sent on: a receiver that goes takes those with it that wait for each other") {
    Rig rig;
    const UnsentRequest first = rig.taken(1, 9, rig.receiver);
    rig.sent_on.delay(first);
    for (uint32_t ticket = 2; ticket <= 5; ++ticket)
        rig.sent_on.send(rig.taken(ticket, 9, rig.receiver), 5, false);
    rig.fails = true;
    rig.sent_on.forget(rig.receiver);
    CHECK(rig.sent.empty());
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
    CHECK(!rig.sent_on.has_of(rig.receiver));
}

TEST_CASE("sent on: thousands of one slot that are sent on again and again keep their order") {
    constexpr uint32_t kCount = 3000;
    Rig rig;
    std::vector<std::string> expected;
    for (const uint16_t node : {uint16_t{4}, uint16_t{5}, uint16_t{4}}) {
        for (uint32_t ticket = 0; ticket < kCount; ++ticket) {
            const std::string name = std::to_string(ticket);
            const bool is_new = !rig.in_flight.contains(name);
            const UnsentRequest request =
                is_new ? rig.taken(ticket, 9, rig.receiver) : rig.again(name, 9);
            rig.sent_on.send(request, node, false);
            expected.push_back(name + " to " + std::to_string(node));
        }
    }
    CHECK(rig.sent == expected);
    for (uint32_t ticket = 0; ticket < kCount; ++ticket)
        rig.answer(std::to_string(ticket));
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
}

TEST_CASE("sent on: a read that begins anew is void, or over where nobody waits") {
    Rig rig;
    rig.sent_on.send(rig.taken(1, 9, rig.receiver), 4, false);
    ReplyReceiver& hop = *rig.in_flight.at("1").request.receiver;
    CHECK(hop.on_reply_void(0));
    CHECK(rig.receiver.told == ToldWords{"1 void"});
    rig.sent_on.forget(rig.receiver);
    CHECK(!hop.on_reply_void(0));
    CHECK(rig.sent_on.size() == 0);
    CHECK(rig.metrics.upstream_retained_bytes == 0);
}

}  // namespace
}  // namespace nearkey::sent_on_test
