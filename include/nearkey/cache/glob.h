// Glob patterns as Valkey's KEYS has them: * ? [abc] [^a-z] and \ before a character that is meant.
#pragma once

#include <string_view>

namespace nearkey {

// Bytes, not characters. Takes at most pattern.size() * text.size() steps.
[[nodiscard]] bool matches_glob(std::string_view pattern, std::string_view text);

}  // namespace nearkey
