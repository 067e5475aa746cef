// cluster.addresses: what is reached elsewhere than it is announced.
#include "nearkey/upstream/address_map.h"

#include <doctest/doctest.h>

namespace nearkey::address_map_test {
namespace {

TEST_CASE("address map: host and port come before the host alone, all else stays") {
    const AddressMap map({"10.0.0.1:7000=outside:8000", "10.0.0.1=elsewhere",
                          "[fd00::1]:7000=127.0.0.1:9000", "node-1=[::1]"});
    CHECK(map.reachable({"10.0.0.1", 7000}) == Endpoint{"outside", 8000});
    CHECK(map.reachable({"10.0.0.1", 7001}) == Endpoint{"elsewhere", 7001});
    CHECK(map.reachable({"fd00::1", 7000}) == Endpoint{"127.0.0.1", 9000});
    CHECK(map.reachable({"fd00::1", 7001}) == Endpoint{"fd00::1", 7001});
    CHECK(map.reachable({"node-1", 6379}) == Endpoint{"::1", 6379});
    CHECK(map.reachable({"outside", 8000}) == Endpoint{"outside", 8000});
    CHECK(map.reachable({"10.0.0.1", 0}) == Endpoint{"10.0.0.1", 0});
    CHECK(AddressMap().reachable({"a", 1}) == Endpoint{"a", 1});
}

TEST_CASE("address map: a row that can't be used says why") {
    CHECK(AddressMap::problem_of("a:1=b:2").empty());
    CHECK(AddressMap::problem_of("a=b").empty());
    CHECK(AddressMap::problem_of("[::1]:1=b:2").empty());
    for (const char* const row : {"", "a", "a:1", "a:1=b", "a=b:1", "=b", "a=", "a:0=b:1",
                                  "a:1=b:65536", "::1=b", "a:1=b:2=c:3", "a b=c"}) {
        CAPTURE(row);
        CHECK_FALSE(AddressMap::problem_of(row).empty());
    }
}

}  // namespace
}  // namespace nearkey::address_map_test
