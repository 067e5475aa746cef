// What a new connection says, step by step, and what each refusal means.
#include "nearkey/upstream/handshake.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::handshake_test {
namespace {

const std::string kHello2 = "*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n";
const std::string kSelect5 = "*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n";
const std::string kSetName = "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$2\r\nme\r\n";
const std::string kPing = "*1\r\n$4\r\nPING\r\n";

Value reply(const std::string& bytes) {
    return parse_value(bytes).value();
}

struct Setup {
    UpstreamUrl url;
    std::string name = "me";
    int database = 0;

    // A handshake that has got the first `count` of its good replies.
    Handshake after(size_t count) const {
        Handshake handshake(url, name, {Protocol::Resp2, database, false});
        std::vector<std::string> replies{"%1\r\n+server\r\n+valkey\r\n"};
        if (database != 0) replies.emplace_back("+OK\r\n");
        if (!name.empty()) replies.emplace_back("+OK\r\n");
        replies.emplace_back("+PONG\r\n");
        for (size_t i = 0; i < count; ++i)
            handshake.on_reply(reply(replies.at(i)));
        return handshake;
    }
};

void check_failed(Handshake& handshake, const std::string& bytes, Handshake::Failure failure) {
    CAPTURE(bytes);
    handshake.on_reply(reply(bytes));
    CHECK(handshake.failure() == failure);
    CHECK_FALSE(handshake.is_complete());
    CHECK(handshake.command().empty());
    CHECK_FALSE(handshake.error().empty());
}

TEST_CASE("handshake: HELLO, SELECT, CLIENT SETNAME, PING, each after the reply to the last") {
    Setup setup;
    setup.database = 5;
    const std::vector<std::string> commands{kHello2, kSelect5, kSetName, kPing};
    for (size_t i = 0; i < commands.size(); ++i) {
        CAPTURE(i);
        const Handshake handshake = setup.after(i);
        CHECK(handshake.command() == commands[i]);
        CHECK_FALSE(handshake.is_complete());
    }
    const Handshake done = setup.after(4);
    CHECK(done.is_complete());
    CHECK(done.command().empty());
    CHECK(done.failure() == Handshake::Failure::None);
    CHECK(done.error().empty());
    CHECK(done.hello().find("server")->text == "valkey");
}

TEST_CASE("handshake: database 0 needs no SELECT, an empty name no SETNAME") {
    Setup setup;
    CHECK(setup.after(1).command() == kSetName);
    setup.name.clear();
    CHECK(setup.after(1).command() == kPing);
    CHECK(setup.after(2).is_complete());
}

TEST_CASE("handshake: a primary of Valkey is told that -REDIRECT is understood, where it is") {
    const std::string capability = "*3\r\n$6\r\nCLIENT\r\n$4\r\nCAPA\r\n$8\r\nredirect\r\n";
    const UpstreamUrl url;
    const std::string name;
    const auto second_step = [&](const std::string& hello, bool is_understood) {
        Handshake handshake(url, name, {Protocol::Resp2, 0, is_understood});
        handshake.on_reply(reply(hello));
        return handshake.command();
    };
    const std::string primary = "%2\r\n+server\r\n+valkey\r\n+role\r\n+master\r\n";
    CHECK(second_step(primary, true) == capability);
    CHECK(second_step(primary, false) == kPing);
    CHECK(second_step("%2\r\n+server\r\n+valkey\r\n+role\r\n+replica\r\n", true) == kPing);
    CHECK(second_step("%2\r\n+server\r\n+redis\r\n+role\r\n+master\r\n", true) == kPing);
    // One that does not know it is used all the same.
    Handshake handshake(url, name, {Protocol::Resp2, 0, true});
    handshake.on_reply(reply(primary));
    handshake.on_reply(reply("-ERR unknown subcommand 'CAPA'\r\n"));
    CHECK(handshake.command() == kPing);
    handshake.on_reply(reply("+PONG\r\n"));
    CHECK(handshake.is_complete());
}

TEST_CASE("handshake: behind Sentinels only a primary will do") {
    UpstreamUrl url;
    url.kind = UpstreamUrl::Kind::Sentinel;
    url.host = "10.0.0.2";
    const std::string name = "me";
    for (const char* role : {"+replica", "+slave", "+", "_"}) {
        Handshake handshake(url, name, {Protocol::Resp2, 0, true});
        const std::string hello =
            std::string("%2\r\n+server\r\n+valkey\r\n+role\r\n") + role + "\r\n";
        check_failed(handshake, hello, Handshake::Failure::Replica);
        CHECK(handshake.error() == "no primary answers at 10.0.0.2:6379");
    }
    Handshake handshake(url, name, {Protocol::Resp2, 0, true});
    handshake.on_reply(reply("%2\r\n+server\r\n+valkey\r\n+role\r\n+master\r\n"));
    CHECK(handshake.failure() == Handshake::Failure::None);
}

TEST_CASE("handshake: HELLO names the protocol") {
    const UpstreamUrl url;
    const std::string name;
    CHECK(Handshake(url, name, {Protocol::Resp3, 0, false}).command() ==
          "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
}

TEST_CASE("handshake: credentials go with HELLO, any byte in them, 'default' without a user") {
    Setup setup;
    setup.url.password = std::string("a\0\r\n", 4);
    CHECK(setup.after(0).command() ==
          "*5\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$4\r\n" +
              setup.url.password + "\r\n");
    setup.url.user = "u";
    setup.url.password.clear();
    CHECK(setup.after(0).command() ==
          "*5\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$0\r\n\r\n");
}

TEST_CASE("handshake: refused credentials are told apart from other refusals of HELLO") {
    const Setup setup;
    for (const std::string bytes :
         {"-WRONGPASS invalid\r\n", "-NOAUTH needed\r\n", "-NOPERM no\r\n"}) {
        Handshake handshake = setup.after(0);
        handshake.on_reply(reply(bytes));
        CHECK(handshake.command() == kPing);
        CHECK(handshake.failure() == Handshake::Failure::None);
        check_failed(handshake, "-NOAUTH Authentication required.\r\n", Handshake::Failure::Auth);
        CHECK("-" + handshake.error() + "\r\n" == bytes);
        CHECK(handshake.words() == "NOAUTH Authentication required.");
    }
    // A server that would take us as another user.
    for (const std::string bytes : {"+PONG\r\n", "-LOADING not yet\r\n"}) {
        Handshake handshake = setup.after(0);
        handshake.on_reply(reply("-WRONGPASS invalid\r\n"));
        check_failed(handshake, bytes, Handshake::Failure::Auth);
        CHECK(handshake.words() == "WRONGPASS invalid");
    }
    for (const std::string bytes :
         {"-ERR unknown command\r\n", "-NOPROTO no\r\n", "!3\r\nERR\r\n"}) {
        Handshake handshake = setup.after(0);
        check_failed(handshake, bytes, Handshake::Failure::Other);
        CHECK(handshake.words().empty());
    }
}

TEST_CASE("handshake: a server that takes no connection says so to clients as well") {
    for (const std::string words :
         {"ERR max number of clients reached", "DENIED Running in protected mode"}) {
        Handshake handshake = Setup().after(0);
        check_failed(handshake, "-" + words + "\r\n", Handshake::Failure::Other);
        CHECK(handshake.words() == words);
    }
}

TEST_CASE("handshake: a SELECT refused is the database's fault, in the server's own words") {
    for (const std::string words : {"ERR DB index is out of range", "BUSY running a script"}) {
        Setup setup;
        setup.database = 5;
        Handshake refused = setup.after(1);
        check_failed(refused, "-" + words + "\r\n", Handshake::Failure::Database);
        CHECK(refused.error() == words);
        CHECK(refused.words() == words);
    }
}

TEST_CASE("handshake: a server that refuses names can still serve") {
    Handshake handshake = Setup().after(1);
    handshake.on_reply(reply("-NOPERM no\r\n"));
    CHECK(handshake.command() == kPing);
}

TEST_CASE("handshake: a server that refuses PING can be reached, and has said why") {
    const Setup setup;
    struct Row {
        std::string words;
        bool serves;  // reads
    };
    for (const Row& row :
         {Row{"MISCONF can't save", true}, Row{"NOPERM no", true},
          Row{"ERR unknown command 'PING'", true}, Row{"LOADING not yet", false},
          Row{"MASTERDOWN link is down", false}, Row{"BUSY with a script", false}}) {
        CAPTURE(row.words);
        Handshake handshake = setup.after(2);
        handshake.on_reply(reply("-" + row.words + "\r\n"));
        CHECK(handshake.is_complete());
        CHECK(handshake.pong().refusal == row.words);
        CHECK(handshake.pong().serves == row.serves);
    }
    CHECK(setup.after(3).pong().serves);
    CHECK(setup.after(3).pong().refusal.empty());
    Handshake stranger = setup.after(2);
    check_failed(stranger, "-NOAUTH needed\r\n", Handshake::Failure::Auth);
    CHECK(stranger.words() == "NOAUTH needed");
    for (const std::string bytes : {"+OK\r\n", ":1\r\n", "*0\r\n", "$-1\r\n"}) {
        Handshake other = setup.after(2);
        check_failed(other, bytes, Handshake::Failure::Other);
    }
}

TEST_CASE("handshake: replies after its end change nothing") {
    const Setup setup;
    Handshake complete = setup.after(3);
    complete.on_reply(reply("-ERR late\r\n"));
    CHECK(complete.is_complete());
    Handshake failed = setup.after(0);
    failed.on_reply(reply("-ERR first\r\n"));
    failed.on_reply(reply("+PONG\r\n"));
    CHECK_FALSE(failed.is_complete());
    CHECK(failed.error() == "ERR first");
}

}  // namespace
}  // namespace nearkey::handshake_test
