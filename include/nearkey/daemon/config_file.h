// Reads a configuration file into settings; the wall around toml11 (3.7 and 4.x).
// The one rule: nothing that is not sane UTF-8 text of bounded size and depth reaches toml11, which
// overflows the stack on deep nesting.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nearkey/daemon/config_option.h"

namespace nearkey {

// In the order of their lines, keys as "table.key", or "listener[0].key". Both
// throw ConfigError, with FILE:LINE where a line is to blame. `named_by` is the flag or variable
// that named the file.
std::vector<Setting> read_config_file(const std::string& path, std::string_view named_by);
std::vector<Setting> parse_config_text(const std::string& text, const std::string& path);

}  // namespace nearkey
