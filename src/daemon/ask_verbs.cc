#include "nearkey/daemon/ask_verbs.h"

#include "nearkey/base/log.h"
#include "nearkey/cli/changes.h"
#include "nearkey/cli/ready.h"

#include <CLI/CLI.hpp>
#include <variant>

namespace nearkey {
namespace {

constexpr int kTimeoutMsMax = 3600 * 1000;
constexpr int kTimeoutMs = 1000;
constexpr uint64_t kRowsMax = 1'000'000;

// What a verb takes besides --admin, --config and --timeout-ms.
enum Takes : unsigned { kNothing = 0, kJson = 1, kLimit = 2, kLevel = 4 };

struct AskVerb {
    const char* name;
    AskFunction ask;
    const char* help;
    unsigned takes;
    int timeout_ms;
};

constexpr AskVerb kVerbs[] = {
    {"ready", run_ready, "Ask a running nearkey whether it is ready", kNothing, kTimeoutMs},
    {"log-level", run_log_level, "Set what a running nearkey logs, or ask for it", kLevel,
     kTimeoutMs},
    {"cache-clear", run_cache_clear, "Empty the near cache of a running nearkey", kNothing,
     kTimeoutMs},
    {"reload", run_reload, "Have the configuration read again, and say what changed", kNothing,
     30'000},
    {"upgrade", run_upgrade, "Have the program on disk take over from the running one", kNothing,
     60'000},
};

template <class Value>
CLI::Option* add_number(CLI::App& verb, const std::string& name, Value& value,
                        const std::string& help) {
    return verb.add_option(name, value, help)->type_name("N");
}

std::string check_level(const std::string& text) {
    LogLevel level = LogLevel::Info;
    return parse_log_level(text, level) ? "" : "allowed is one of debug, info, warning, error";
}

void add_flags(CLI::App& verb, const AskVerb& row, Asked& asked) {
    verb.add_option("--admin", asked.admin, "Where it is: a path or 127.0.0.1:PORT")
        ->type_name("ADDR");
    verb.add_option("--config", asked.config_file,
                    "Its configuration, which says where it is; not with --admin")
        ->type_name("FILE");
    const std::string fallback = " [" + std::to_string(row.timeout_ms) + "]";
    add_number(verb, "--timeout-ms", asked.timeout_ms, "How long to wait for the answer" + fallback)
        ->check(CLI::Range(1, kTimeoutMsMax));
    if ((row.takes & kJson) != 0) {
        verb.add_flag("--json", asked.options.json, "For programs: what the admin server says");
    }
    if ((row.takes & kLimit) != 0) {
        add_number(verb, "--limit", asked.options.limit, "At most so many rows [100]")
            ->check(CLI::Range(uint64_t{1}, kRowsMax));
    }
    if ((row.takes & kLevel) != 0) {
        verb.add_option("LEVEL", asked.options.level, "debug, info, warning or error")
            ->check(check_level);
    }
}

}  // namespace

void add_ask_verbs(CLI::App& app, Asked& asked) {
    for (const AskVerb& row : kVerbs) {
        CLI::App& verb = *app.add_subcommand(row.name, row.help);
        add_flags(verb, row, asked);
        verb.callback([&asked, &row] {
            asked.ask = row.ask;
            asked.options.target.timeout_ms = asked.timeout_ms.value_or(row.timeout_ms);
        });
    }
}

AdminTarget find_target(const Asked& asked, const Environment& environment) {
    ListenAddress address;
    if (asked.admin) {
        const AddressResult result = parse_admin_address(*asked.admin);
        if (const auto* const error = std::get_if<AddressError>(&result)) {
            throw ConfigError("--admin " + *asked.admin + ": " + error->message);
        }
        address = std::get<ListenAddress>(result);
    } else if (asked.config_file || environment.find("NEARKEY_CONFIG") != nullptr) {
        ConfigSources sources;
        sources.config_file = asked.config_file;
        sources.environment = environment;
        // To an application it is the address of nearkey itself, and it says nothing of the
        // admin's.
        sources.environment.variables.erase("CACHE_URL");
        address = admin_address(load_config(sources), environment);
    } else {
        address = admin_address(Config{}, environment);
    }
    return {to_text(address), asked.options.target.timeout_ms};
}

}  // namespace nearkey
