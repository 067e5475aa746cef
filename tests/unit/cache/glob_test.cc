#include "nearkey/cache/glob.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::glob_test {
namespace {

TEST_CASE("glob: what Valkey's KEYS would find") {
    struct Case {
        std::string_view pattern;
        std::string_view text;
        bool matches;
    };
    const Case cases[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "anything", true},
        {"a*", "a", true},
        {"a*", "ba", false},
        {"*a", "bba", true},
        {"*a", "ab", false},
        {"user:*:name", "user:17:name", true},
        {"user:*:name", "user:17:names", false},
        {"a*b*c", "aXbYbZc", true},
        {"a**c", "ac", true},
        {"h?llo", "hallo", true},
        {"h?llo", "hllo", false},
        {"h[ae]llo", "hello", true},
        {"h[ae]llo", "hillo", false},
        {"h[^e]llo", "hallo", true},
        {"h[^e]llo", "hello", false},
        {"h[a-b]llo", "hbllo", true},
        {"h[b-a]llo", "hbllo", true},
        {"h[a-b]llo", "hcllo", false},
        {"[\\]]", "]", true},
        {"a\\*", "a*", true},
        {"a\\*", "ab", false},
        {"a[", "a", false},
        {"a[b", "ab", true},
        {"a\\", "a\\", true},
        {"*[0-9]", "key7", true},
        {"*[0-9]", "key", false},
    };
    for (const Case& each : cases) {
        CAPTURE(each.pattern);
        CAPTURE(each.text);
        CHECK(matches_glob(each.pattern, each.text) == each.matches);
    }
}

TEST_CASE("glob: every byte is a character, NUL among them") {
    const std::string key("a\0\xff", 3);
    CHECK(matches_glob("a??", key));
    CHECK(matches_glob("*\xff", key));
}

TEST_CASE("glob: a pattern of many stars does not explode") {
    std::string pattern;
    for (int i = 0; i < 50; ++i)
        pattern += "*a";
    pattern += "b";
    CHECK_FALSE(matches_glob(pattern, std::string(5000, 'a')));
}

}  // namespace
}  // namespace nearkey::glob_test
