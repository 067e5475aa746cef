// The tags that a client gives its commands.
#include "nearkey/session/request_tags.h"

#include <doctest/doctest.h>

namespace nearkey::request_tags_test {
namespace {

TEST_CASE("request tags: a command has the last one before it, over the end of the numbers, too") {
    for (const uint32_t first : {0U, 7U, UINT32_MAX - 2, UINT32_MAX}) {
        CAPTURE(first);
        RequestTags tags;
        CHECK(tags.last().empty());
        tags.set("a", first);
        tags.set("b", first + 2);
        tags.set("", first + 4);
        tags.set("c", first + 5);
        const std::string_view expected[] = {"a", "a", "b", "b", "", "c", "c"};
        CHECK(tags.of(first - 1).empty());
        for (uint32_t i = 0; i < std::size(expected); ++i)
            CHECK(tags.of(first + i) == expected[i]);
        const size_t before = tags.memory_bytes();
        tags.keep_from(first + 3);
        for (uint32_t i = 3; i < std::size(expected); ++i)
            CHECK(tags.of(first + i) == expected[i]);
        tags.keep_from(first + 50);
        CHECK(tags.of(first + 50) == "c");
        CHECK(tags.last() == "c");
        CHECK(tags.memory_bytes() <= before);
    }
}

TEST_CASE("request tags: as many as are needed, up to a bound") {
    RequestTags tags;
    for (uint32_t i = 0; i < RequestTags::kKeptMax; ++i) {
        CHECK_FALSE(tags.is_full());
        tags.set("tag", i);
    }
    CHECK(tags.is_full());
    tags.keep_from(0);
    CHECK(tags.is_full());
    tags.keep_from(1);
    CHECK_FALSE(tags.is_full());
}

}  // namespace
}  // namespace nearkey::request_tags_test
