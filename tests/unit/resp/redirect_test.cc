// Words of a cluster's nodes, and what only looks like them.
#include "nearkey/resp/redirect.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::redirect_test {
namespace {

using Kind = Redirect::Kind;

TEST_CASE("redirect: MOVED and ASK name a slot and an address") {
    const auto moved = read_redirect("-MOVED 3999 127.0.0.1:6381\r\n");
    REQUIRE(moved);
    CHECK(moved->kind == Kind::Moved);
    CHECK(moved->slot == 3999);
    CHECK(moved->host == "127.0.0.1");
    CHECK(moved->port == 6381);
    CHECK(moved->words == "-MOVED 3999 127.0.0.1:6381\r\n");

    const auto ask = read_redirect("ASK 0 cache.example:7000");
    REQUIRE(ask);
    CHECK(ask->kind == Kind::Ask);
    CHECK(ask->slot == 0);
    CHECK(ask->host == "cache.example");
    CHECK(ask->port == 7000);
}

TEST_CASE("redirect: the port is behind the last colon") {
    const auto moved = read_redirect("-MOVED 1 2001:db8::1:6379\r\n");
    REQUIRE(moved);
    CHECK(moved->host == "2001:db8::1");
    CHECK(moved->port == 6379);
}

TEST_CASE("redirect: no host is that which was asked, ? has no name") {
    const auto same = read_redirect("-MOVED 9424 :7101\r\n");
    REQUIRE(same);
    CHECK(same->host.empty());
    CHECK(same->port == 7101);
    const auto nobody = read_redirect("-MOVED 14268 ?:7102\r\n");
    REQUIRE(nobody);
    CHECK(nobody->host == "?");
    CHECK(nobody->port == 7102);
    const auto no_slot = read_redirect("-MOVED -1 127.0.0.1:7000\r\n");
    REQUIRE(no_slot);
    CHECK(no_slot->slot == -1);
}

TEST_CASE("redirect: the other words") {
    const auto kind_of = [](const std::string& error) {
        const auto redirect = read_redirect(error);
        REQUIRE(redirect);
        return redirect->kind;
    };
    CHECK(kind_of("-TRYAGAIN Multiple keys request during rehashing of slot\r\n") ==
          Kind::TryAgain);
    CHECK(kind_of("-CLUSTERDOWN Hash slot not served\r\n") == Kind::ClusterDown);
    CHECK(kind_of("-READONLY You can't write against a read only replica.\r\n") == Kind::ReadOnly);
    const auto replica = read_redirect("-REDIRECT 10.0.0.7:6379\r\n");
    REQUIRE(replica);
    CHECK(replica->kind == Kind::Replica);
    CHECK(replica->port == 6379);
}

TEST_CASE("redirect: what is none") {
    for (const std::string error : {"", "-", "-ERR MOVED 1 a:1\r\n", "-MOVEDX 1 a:1\r\n",
                                    "-ASKING\r\n", "-moved 1 a:1\r\n", "+MOVED 1 a:1\r\n"}) {
        CAPTURE(error);
        CHECK(!read_redirect(error));
    }
}

TEST_CASE("redirect: a name that no host can have names nobody") {
    const std::string name(255, 'n');
    CHECK(read_redirect("-MOVED 1 " + name + ":7000\r\n")->host == name);
    const auto moved = read_redirect("-MOVED 1 " + name + "n:7000\r\n");
    REQUIRE(moved);
    CHECK(moved->slot == 1);
    CHECK(moved->port == 0);
}

TEST_CASE("redirect: a malformed one names no slot, or nobody") {
    for (const std::string error :
         {"-MOVED\r\n", "-MOVED 1\r\n", "-MOVED 1 a\r\n", "-MOVED 1 a:\r\n", "-MOVED 1 a:0\r\n",
          "-MOVED 1 a:65536\r\n", "-MOVED 1 a:-1\r\n", "-MOVED 8579 :0\r\n", "-ASK 1 :\r\n",
          "-REDIRECT\r\n", "-REDIRECT a\r\n"}) {
        CAPTURE(error);
        const auto redirect = read_redirect(error);
        REQUIRE(redirect);
        CHECK(redirect->port == 0);
    }
    for (const std::string error :
         {"-MOVED x a:1\r\n", "-MOVED 16384 a:1\r\n", "-MOVED -2 a:1\r\n"}) {
        CAPTURE(error);
        const auto redirect = read_redirect(error);
        REQUIRE(redirect);
        CHECK(redirect->slot == -1);
        CHECK(redirect->port == 1);
    }
}

}  // namespace
TEST_CASE("redirect: what an error may become is known from each beginning of it") {
    for (const std::string_view words :
         {"-MOVED 1 a:1", "-ASK 1 a:1", "-TRYAGAIN x", "-CLUSTERDOWN x"})
        for (size_t size = 1; size <= words.size(); ++size)
            CHECK(may_be_elsewhere(words.substr(0, size)));
    for (const std::string_view words :
         {"-MOVEX", "-ASKING", "-TRY ", "-ERR MOVED ", "-READONLY x", ":1"})
        CHECK_FALSE(may_be_elsewhere(words));
}

}  // namespace nearkey::redirect_test
