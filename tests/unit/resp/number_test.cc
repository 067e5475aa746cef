#include "nearkey/resp/number.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

using nearkey::parse_integer;

TEST_CASE("number: one spelling for each number, as string2ll reads it") {
    for (int64_t value : {0L, 1L, 9L, 10L, 99L, 100L, -1L, -10L, INT64_MAX, INT64_MIN}) {
        CAPTURE(value);
        CHECK(parse_integer(std::to_string(value)) == value);
    }
    for (const std::string text :
         {"", "-", "+1", "01", "00", "-0", " 1", "1 ", "1x", "x1", "0x1", "9223372036854775808",
          "-9223372036854775809", "99999999999999999999", "a", ":0", "1:", "/1"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_integer(text));
    }
}

TEST_CASE("number: every spelling of up to three digits means what it says") {
    for (int value = -999; value <= 999; ++value) {
        CHECK(parse_integer(std::to_string(value)) == value);
    }
}
