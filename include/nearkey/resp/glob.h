// Patterns of PSUBSCRIBE and KEYS, as the server matches them (stringmatchlen in util.c): * ?
// [class] [^class] and \ before a letter.
#pragma once

#include <string_view>

namespace nearkey {

// False: it matches no text that begins with `prefix`.
bool may_match_behind(std::string_view pattern, std::string_view prefix);

}  // namespace nearkey
