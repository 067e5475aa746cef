#include "nearkey/resp/glob.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

namespace nearkey::glob_test {
namespace {

// As in the server's util.c.
bool matches(std::string_view pattern, std::string_view text) {
    while (!pattern.empty() && !text.empty()) {
        switch (pattern[0]) {
            case '*':
                for (size_t taken = 0; taken <= text.size(); ++taken)
                    if (matches(pattern.substr(1), text.substr(taken))) return true;
                return false;
            case '?':
                break;
            case '[': {
                pattern.remove_prefix(1);
                const bool is_not = pattern.starts_with('^');
                if (is_not) pattern.remove_prefix(1);
                bool match = false;
                for (;; pattern.remove_prefix(1)) {
                    if (pattern.size() >= 2 && pattern[0] == '\\') {
                        pattern.remove_prefix(1);
                        match |= pattern[0] == text[0];
                    } else if (pattern.empty() || pattern[0] == ']') {
                        break;
                    } else if (pattern.size() >= 3 && pattern[1] == '-') {
                        match |= (pattern[0] <= text[0] && text[0] <= pattern[2]) ||
                                 (pattern[2] <= text[0] && text[0] <= pattern[0]);
                        pattern.remove_prefix(2);
                    } else {
                        match |= pattern[0] == text[0];
                    }
                }
                if (match == is_not) return false;
                break;
            }
            case '\\':
                if (pattern.size() >= 2) pattern.remove_prefix(1);
                [[fallthrough]];
            default:
                if (pattern[0] != text[0]) return false;
        }
        if (!pattern.empty()) pattern.remove_prefix(1);
        text.remove_prefix(1);
    }
    while (text.empty() && pattern.starts_with('*'))
        pattern.remove_prefix(1);
    return pattern.empty() && text.empty();
}

// Each text of these letters, up to so many.
std::vector<std::string> texts_of(std::string_view letters, size_t length) {
    std::vector<std::string> texts{""};
    for (size_t i = 0; i < texts.size(); ++i) {
        if (texts[i].size() == length) break;
        for (const char letter : letters)
            texts.push_back(texts[i] + letter);
    }
    return texts;
}

}  // namespace

TEST_CASE("glob: a class is read as the server reads it") {
    CHECK(may_match_behind("[_-]]_k*", "__k"));
    CHECK(may_match_behind("[^]_k", "__k"));
    CHECK(may_match_behind("[\\]_]_k", "__k"));
    CHECK_FALSE(may_match_behind("[a-c]_k*", "__k"));
    CHECK_FALSE(may_match_behind("[^_]_k*", "__k"));
    CHECK_FALSE(may_match_behind("[]_k*", "__k"));
    CHECK_FALSE(may_match_behind("[\\]a]_k*", "__k"));
    CHECK_FALSE(may_match_behind("__j*", "__k"));
    CHECK_FALSE(may_match_behind("__", "__k"));
}

TEST_CASE("glob: no pattern that matches a text behind the prefix is missed") {
    const std::vector<std::string> patterns = texts_of("[]^-\\_a?*", 4);
    const std::vector<std::string> ends = texts_of("_a]", 2);
    size_t matched = 0;
    for (const std::string& pattern : patterns) {
        for (const std::string& end : ends) {
            if (!matches(pattern, "_a" + end)) continue;
            ++matched;
            CHECK_MESSAGE(may_match_behind(pattern, "_a"), pattern);
        }
    }
    CHECK(matched > 1000);
}

}  // namespace nearkey::glob_test
