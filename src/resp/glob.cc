#include "nearkey/resp/glob.h"

#include <algorithm>
#include <cstddef>

namespace nearkey {

namespace {

// Takes the class at the front off the pattern. True: it has the letter. It ends with a ] that is
// neither the end of a range nor behind a backslash, or with the pattern.
bool take_class(std::string_view& pattern, char letter) {
    size_t at = 1;
    const bool is_inverted = pattern.substr(at).starts_with('^');
    at += is_inverted ? 1 : 0;
    bool has_letter = false;
    for (; at < pattern.size() && pattern[at] != ']'; ++at) {
        const size_t left = pattern.size() - at;
        char first = pattern[at];
        char last = first;
        if (first == '\\' && left >= 2) {
            first = last = pattern[++at];
        } else if (left >= 3 && pattern[at + 1] == '-') {
            last = pattern[at += 2];
        }
        has_letter |= std::min(first, last) <= letter && letter <= std::max(first, last);
    }
    pattern.remove_prefix(std::min(at + 1, pattern.size()));
    return has_letter != is_inverted;
}

}  // namespace

bool may_match_behind(std::string_view pattern, std::string_view prefix) {
    for (; !prefix.empty(); prefix.remove_prefix(1)) {
        if (pattern.empty()) return false;
        if (pattern.front() == '*') return true;
        if (pattern.front() == '[') {
            if (!take_class(pattern, prefix.front())) return false;
            continue;
        }
        const bool is_any = pattern.front() == '?';
        if (pattern.front() == '\\' && pattern.size() > 1) pattern.remove_prefix(1);
        if (!is_any && pattern.front() != prefix.front()) return false;
        pattern.remove_prefix(1);
    }
    return true;
}

}  // namespace nearkey
