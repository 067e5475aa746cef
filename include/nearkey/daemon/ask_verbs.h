// The verbs that ask a running nearkey: a row each, of which come their syntax and their help.
// Private to src/daemon/command_line.cc. The one rule: a verb is a row here and a function in cli/.
#pragma once

#include "nearkey/cli/ask.h"
#include "nearkey/daemon/config.h"

#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace nearkey {

// What stood behind the verb. CLI11 fills it, and refers to it while it lives.
struct Asked {
    AskFunction ask = nullptr;  // null: another verb, or none
    AskOptions options;
    std::optional<std::string> admin;
    std::optional<std::string> config_file;
    std::optional<int> timeout_ms;
    std::optional<uint64_t> limit;
};

void add_ask_verbs(CLI::App& app, Asked& asked);
// Where to ask: --admin, or where the configuration (--config, NEARKEY_CONFIG), or else the
// defaults put it. Throws ConfigError.
AdminTarget find_target(const Asked& asked, const Environment& environment);

}  // namespace nearkey
