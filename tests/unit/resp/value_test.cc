#include "nearkey/resp/value.h"

#include <doctest/doctest.h>

using nearkey::parse_value;
using nearkey::Value;

TEST_CASE("value: a map is read, found in, and written in both protocols") {
    const auto map = parse_value("%2\r\n$5\r\nproto\r\n:3\r\n+modules\r\n*0\r\n");
    REQUIRE(map);
    REQUIRE(map->find("proto") != nullptr);
    CHECK(map->find("proto")->integer == 3);
    CHECK(map->find("nothing") == nullptr);
    std::string resp2;
    append_value(resp2, *map, nearkey::Protocol::Resp2);
    CHECK(resp2 == "*4\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n");
    std::string resp3;
    append_value(resp3, *map, nearkey::Protocol::Resp3);
    CHECK(resp3 == "%2\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n");
}

TEST_CASE("value: too deep, cut and trailing bytes are refused") {
    std::string deep;
    for (int i = 0; i < 100; ++i)
        deep += "*1\r\n";
    CHECK_FALSE(parse_value(deep + ":1\r\n"));
    CHECK_FALSE(parse_value("$5\r\nabc\r\n"));
    CHECK_FALSE(parse_value("*2\r\n:1\r\n"));
    CHECK_FALSE(parse_value(":1\r\n:2\r\n"));
    CHECK_FALSE(parse_value(""));
    CHECK_FALSE(parse_value("*999999999\r\n"));
}

TEST_CASE("value: nulls, errors and attributes") {
    CHECK(parse_value("$-1\r\n")->is_null());
    CHECK(parse_value("*-1\r\n")->is_null());
    CHECK(parse_value("_\r\n")->is_null());
    CHECK(parse_value("-ERR x\r\n")->is_error());
    CHECK(parse_value("|1\r\n+a\r\n+b\r\n:7\r\n")->integer == 7);
}

TEST_CASE("value: a null is written as the protocol has it") {
    std::string resp2;
    append_value(resp2, *parse_value("*2\r\n:1\r\n_\r\n"), nearkey::Protocol::Resp2);
    CHECK(resp2 == "*2\r\n:1\r\n$-1\r\n");
    std::string resp3;
    append_value(resp3, *parse_value("*2\r\n:1\r\n$-1\r\n"), nearkey::Protocol::Resp3);
    CHECK(resp3 == "*2\r\n:1\r\n_\r\n");
}
