// Glob patterns as Valkey's KEYS has them: * ? [abc] [^a-z] and \ before a character that is meant.
// For near_cache.keys and skip_keys; keys are bytes, with no regard to what they may encode.
#pragma once

#include <string_view>

namespace nearkey {

// Takes at most pattern.size() * text.size() steps.
[[nodiscard]] bool matches_glob(std::string_view pattern, std::string_view text);

}  // namespace nearkey
