// What a subscriber is subscribed to, and whether it is known.
#include "nearkey/session/subscriptions.h"

#include "../upstream/fake_valkey.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::subscriptions_test {
namespace {

std::string confirmation(const std::string& kind, const std::string& name, char type) {
    return std::string(1, type) + "3\r\n$" + std::to_string(kind.size()) + "\r\n" + kind + "\r\n$" +
           std::to_string(name.size()) + "\r\n" + name + "\r\n:1\r\n";
}

// A client of the server that is described by `table`, and what it gets.
struct Subscriber {
    void ask(const std::string& line) {
        const std::string bytes = encoded(line);
        CommandParser parser(int64_t{1} << 20);
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        CommandSpec spec;
        spec.name = line.substr(0, line.find(' '));
        spec.arity =
            spec.name.ends_with("subscribe") && !spec.name.ends_with("unsubscribe") ? -2 : -1;
        subscriptions.follow(&spec, parser.command());
    }
    // In pieces of that size.
    void hear(const std::string& reply, size_t size) {
        for (size_t i = 0; i < reply.size(); i += size) {
            const std::string_view piece = std::string_view(reply).substr(i, size);
            got += subscriptions.pass(piece, i == 0, i + size >= reply.size());
        }
    }
    Subscriptions subscriptions;
    std::string got;
};

TEST_CASE("subscriptions: a client may move when each answer has come, however it is cut") {
    for (const char type : {'*', '>'}) {
        for (size_t size = 1; size < 60; ++size) {
            CAPTURE(type);
            CAPTURE(size);
            Subscriber client;
            CHECK(client.subscriptions.may_move());
            client.ask("subscribe a b");
            client.ask("psubscribe p*");
            client.ask("ping");
            const std::string message = confirmation("message", "subscribe", type);
            const std::vector<std::string> said{
                confirmation("subscribe", "a", type),
                message,
                confirmation("subscribe", "b", type),
                confirmation("psubscribe", "p*", type),
                confirmation("smessage", "x", type),
                type == '*' ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n"};
            std::string all;
            for (const std::string& reply : said) {
                CHECK_FALSE(client.subscriptions.may_move());
                client.hear(reply, size);
                all += reply;
                CHECK(client.got == all);
            }
            CHECK(client.subscriptions.may_move());
            CHECK(client.subscriptions.size() == 3);
            CHECK(client.subscriptions.begin_anew() ==
                  encoded("subscribe a b") + encoded("psubscribe p*"));
        }
    }
}

TEST_CASE("subscriptions: the answers to what nearkey says anew do not reach the client") {
    for (size_t size = 1; size < 60; ++size) {
        CAPTURE(size);
        Subscriber client;
        client.ask("subscribe a b");
        client.hear(confirmation("subscribe", "a", '*'), 99);
        client.hear(confirmation("subscribe", "b", '*'), 99);
        client.got.clear();
        client.subscriptions.begin_anew();
        client.ask("subscribe c");
        client.hear(confirmation("subscribe", "a", '*'), size);
        client.hear(confirmation("message", "a", '*'), size);
        CHECK_FALSE(client.subscriptions.is_done());
        client.hear(confirmation("subscribe", "b", '*'), size);
        CHECK(client.subscriptions.is_done());
        CHECK_FALSE(client.subscriptions.may_move());
        client.hear(confirmation("subscribe", "c", '*'), size);
        CHECK(client.got ==
              confirmation("message", "a", '*') + confirmation("subscribe", "c", '*'));
        CHECK(client.subscriptions.may_move());
        CHECK_FALSE(client.subscriptions.is_refused());
    }
}

TEST_CASE("subscriptions: one that is refused anew is told") {
    Subscriber client;
    client.ask("subscribe a");
    client.hear(confirmation("subscribe", "a", '*'), 99);
    client.got.clear();
    client.subscriptions.begin_anew();
    client.hear("-NOPERM no\r\n", 5);
    CHECK(client.subscriptions.is_refused());
    CHECK(client.got.empty());
}

TEST_CASE("subscriptions: unsubscribing from all is answered for each, or once") {
    Subscriber client;
    client.ask("subscribe a b");
    client.ask("ssubscribe s");
    client.ask("unsubscribe");
    client.ask("unsubscribe");
    client.ask("unsubscribe x y");
    for (size_t i = 0; i < 3 + 2 + 1 + 2; ++i) {
        CHECK_FALSE(client.subscriptions.may_move());
        client.hear(confirmation(i < 3 ? "subscribe" : "unsubscribe", "a", '*'), 99);
    }
    CHECK(client.subscriptions.may_move());
    CHECK(client.subscriptions.begin_anew() == encoded("ssubscribe s"));
}

TEST_CASE("subscriptions: a name that is subscribed to twice is one") {
    Subscriber client;
    client.ask("subscribe a a");
    client.ask("subscribe a");
    CHECK(client.subscriptions.size() == 1);
    for (size_t i = 0; i < 3; ++i)
        client.hear(confirmation("subscribe", "a", '*'), 99);
    CHECK(client.subscriptions.may_move());
    CHECK(client.subscriptions.begin_anew() == encoded("subscribe a"));
}

TEST_CASE("subscriptions: whatever else is sent, and an error, spoil them for good") {
    for (const std::string line : {"get a", "client", "subscribe", "hello 3", "quit", "auth x"}) {
        CAPTURE(line);
        Subscriber client;
        client.ask(line);
        CHECK_FALSE(client.subscriptions.may_move());
        client.ask("subscribe a");
        client.hear(confirmation("subscribe", "a", '*'), 3);
        CHECK(client.got == confirmation("subscribe", "a", '*'));
        CHECK_FALSE(client.subscriptions.may_move());
    }
    Subscriber refused;
    refused.ask("subscribe a");
    refused.hear("-NOPERM no\r\n", 1);
    CHECK(refused.got == "-NOPERM no\r\n");
    CHECK_FALSE(refused.subscriptions.may_move());
}

TEST_CASE("subscriptions: more names than the most, or longer ones, are not kept") {
    Subscriber many;
    for (size_t i = 0; i <= Subscriptions::kNamesMax; ++i) {
        CHECK(many.subscriptions.size() == i);
        many.ask("subscribe " + std::to_string(i));
    }
    CHECK(many.subscriptions.size() == 0);
    CHECK(many.subscriptions.memory_bytes() < 1024);
    for (size_t i = 0; i <= Subscriptions::kNamesMax; ++i)
        many.hear(confirmation("subscribe", std::to_string(i), '*'), 99);
    CHECK_FALSE(many.subscriptions.may_move());

    Subscriber large;
    large.ask("subscribe " + std::string(Subscriptions::kBytesMax, 'x'));
    large.hear(confirmation("subscribe", "x", '*'), 99);
    CHECK_FALSE(large.subscriptions.may_move());
    CHECK(large.subscriptions.memory_bytes() < 1024);
}

TEST_CASE("subscriptions: what was held back is the client's when RESP ends") {
    Subscriber client;
    client.ask("subscribe a");
    client.hear("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 99);
    client.ask("subscribe b");
    client.got += client.subscriptions.pass("*3\r\n$", true, false);
    client.got += client.subscriptions.give_up();
    CHECK(client.got.ends_with("*3\r\n$"));
    CHECK_FALSE(client.subscriptions.may_move());
}

}  // namespace
}  // namespace nearkey::subscriptions_test
