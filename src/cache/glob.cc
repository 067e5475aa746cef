#include "nearkey/cache/glob.h"

#include <utility>

namespace nearkey {

namespace {

// Takes the class behind '[' off the pattern, the ']' with it; an open one ends with the pattern.
bool matches_class(std::string_view& pattern, unsigned char c) {
    const bool is_negated = pattern.starts_with('^');
    if (is_negated) pattern.remove_prefix(1);
    bool is_in = false;
    while (!pattern.empty() && pattern[0] != ']') {
        if (pattern[0] == '\\' && pattern.size() > 1) pattern.remove_prefix(1);
        auto low = static_cast<unsigned char>(pattern[0]);
        auto high = low;
        pattern.remove_prefix(1);
        if (pattern.size() > 1 && pattern[0] == '-') {
            high = static_cast<unsigned char>(pattern[1]);
            pattern.remove_prefix(2);
            if (low > high) std::swap(low, high);
        }
        is_in |= low <= c && c <= high;
    }
    if (!pattern.empty()) pattern.remove_prefix(1);
    return is_in != is_negated;
}

// Takes the part for one byte off the pattern. REQUIRES: it is not empty and no '*' comes next.
bool matches_one(std::string_view& pattern, unsigned char c) {
    char first = pattern[0];
    pattern.remove_prefix(1);
    if (first == '?') return true;
    if (first == '[') return matches_class(pattern, c);
    if (first == '\\' && !pattern.empty()) {
        first = pattern[0];
        pattern.remove_prefix(1);
    }
    return static_cast<unsigned char>(first) == c;
}

}  // namespace

// Only the text matched by the last '*' grows: those before have found their place.
bool matches_glob(std::string_view pattern, std::string_view text) {
    bool has_star = false;
    std::string_view pattern_behind;
    std::string_view text_behind;
    while (true) {
        if (pattern.starts_with('*')) {
            pattern.remove_prefix(1);
            has_star = true;
            pattern_behind = pattern;
            text_behind = text;
            continue;
        }
        if (text.empty() && pattern.empty()) return true;
        const bool has_both = !text.empty() && !pattern.empty();
        if (has_both && matches_one(pattern, static_cast<unsigned char>(text[0]))) {
            text.remove_prefix(1);
            continue;
        }
        if (!has_star || text_behind.empty()) return false;
        text_behind.remove_prefix(1);
        pattern = pattern_behind;
        text = text_behind;
    }
}

}  // namespace nearkey
