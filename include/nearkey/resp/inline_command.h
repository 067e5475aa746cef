// The inline form of a command: blank-separated words, with quotes, as a person types them.
// Read exactly as Valkey's sdssplitargs (sds.c) does.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Nothing if the quotes are unbalanced. `line` has no line end and no NUL.
std::optional<std::vector<std::string>> split_inline(std::string_view line);

}  // namespace nearkey
