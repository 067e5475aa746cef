#include "nearkey/daemon/ask_verbs.h"

#include "nearkey/base/log.h"
#include "nearkey/base/parse_number.h"
#include "nearkey/cli/changes.h"
#include "nearkey/cli/lists.h"
#include "nearkey/cli/ready.h"
#include "nearkey/cli/stats.h"
#include "nearkey/cli/top.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <variant>

namespace nearkey {
namespace {

constexpr int kTimeoutMsMax = 3600 * 1000;
constexpr int kTimeoutMs = 1000;
constexpr uint64_t kIntervalMsMin = 50;
constexpr uint64_t kIntervalMsMax = 3600 * 1000;
// What a verb takes besides --admin, --config and --timeout-ms.
enum Takes : unsigned { kNothing = 0, kJson = 1, kLimit = 2, kLevel = 4, kPace = 8 };

struct AskVerb {
    const char* name;
    AskFunction ask;
    const char* help;
    const char* more;  // below its options, with the exit codes
    unsigned takes = kNothing;
    int timeout_ms = kTimeoutMs;
    uint64_t limit = 0;  // kLimit: unless --limit says another, and what it may say
    uint64_t limit_max = 0;
};

constexpr AskVerb kVerbs[] = {
    {"ready", run_ready, "Ask a running nearkey whether it is ready",
     "For probes: one line says why, on stdout.\n"
     "Exit codes: 0 ready, 1 not ready, 2 nobody answers (or a wrong command line)\n"},
    {"stats", run_stats, "Show how a running nearkey is",
     "Numbers count from its start. --json prints /stats.\n", kJson},
    {"top", run_top, "Show a running nearkey live: rates, hit ratio, latency, keys",
     "q or Ctrl-C ends it. Where nobody answers it waits for somebody who does. Where stdout is "
     "no\n"
     "terminal it prints one page, as with --once.\n",
     kPace},
    {"clients", run_clients, "List the clients of a running nearkey",
     "ROUTE: how its last command went, none, shared, leased, transaction or tunnel.\n"
     "FLIGHT: commands in flight. --json prints /clients.\n",
     kJson | kLimit, kTimeoutMs, 100, 1'000'000},
    {"connections", run_connections, "List the connections of a running nearkey to Valkey",
     "PROVEN: so long ago a PING was sent that was answered. --json prints /connections.\n",
     kJson | kLimit, kTimeoutMs, 100, 1000},
    {"hotkeys", run_hot_keys, "List the keys that are read most",
     "Keys are shown by a hash, unless hotkeys.show_names is true. Counts are of the last "
     "seconds,\n"
     "and by at most ERROR too high. --json prints /hotkeys.\n",
     kJson | kLimit, kTimeoutMs, 20, 1000},
    {"slowlog", run_slow_log, "List the last requests that took long",
     "Kept are those above slowlog.threshold_ms. --json prints /slowlog.\n", kJson | kLimit,
     kTimeoutMs, 100, 10'000},
    {"log-level", run_log_level, "Set what a running nearkey logs, or ask for it",
     "Holds until it ends, or a reload brings another log.level.\n", kLevel},
    {"cache-clear", run_cache_clear, "Empty the near cache of a running nearkey", ""},
    {"reload", run_reload, "Have a running nearkey read its configuration again",
     "Says what changed, once a new upstream has answered. What can't be applied refuses all of\n"
     "it, and the exit code is 1.\n",
     kNothing, 30'000},
    {"upgrade", run_upgrade, "Have the program on disk take over from a running nearkey",
     "Waits until the new nearkey serves. No connect is refused meanwhile; the old one goes on if\n"
     "the new one does not get ready.\n",
     kNothing, 60'000},
};

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 nearkey refused, 2 nobody answers (or a wrong command line)\n";

template <class Value>
void add_number(CLI::App& verb, const std::string& name, Value& value, const std::string& help,
                uint64_t least, uint64_t most) {
    const auto check = [least, most](const std::string& text) {
        const auto number = parse_number<uint64_t>(text);
        return number && *number >= least && *number <= most
                   ? std::string()
                   : fmt::format("{} is no integer from {} to {}", text, least, most);
    };
    verb.add_option(name, value, help)->type_name("N")->check(check);
}

std::string check_level(const std::string& text) {
    LogLevel level = LogLevel::Info;
    return parse_log_level(text, level) ? "" : "allowed is one of debug, info, warning, error";
}

void add_flags(CLI::App& verb, const AskVerb& row, Asked& asked) {
    verb.add_option("--admin", asked.admin, "Where it is: a path or 127.0.0.1:PORT")
        ->type_name("ADDR");
    verb.add_option("--config", asked.config_file, "Its configuration, which says where it is")
        ->type_name("FILE");
    const std::string fallback = " [" + std::to_string(row.timeout_ms) + "]";
    add_number(verb, "--timeout-ms", asked.timeout_ms, "How long to wait for the answer" + fallback,
               1, kTimeoutMsMax);
    if ((row.takes & kJson) != 0) {
        verb.add_flag("--json", asked.options.json, "For programs: what the admin server says");
    }
    if ((row.takes & kLimit) != 0) {
        add_number(verb, "--limit", asked.limit,
                   "At most so many rows [" + std::to_string(row.limit) + "]", 1, row.limit_max);
    }
    if ((row.takes & kPace) != 0) {
        verb.add_flag("--once", asked.options.once, "Print one page, and end");
        add_number(verb, "--interval-ms", asked.options.interval_ms,
                   "From one page to the next [1000]", kIntervalMsMin, kIntervalMsMax);
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
        const std::string_view more = row.more;
        const bool has_codes = more.find("Exit codes") != std::string_view::npos;
        verb.footer(std::string(more) + (has_codes ? "" : kExitCodes));
        add_flags(verb, row, asked);
        verb.callback([&asked, &row] {
            asked.ask = row.ask;
            asked.options.target.timeout_ms = asked.timeout_ms.value_or(row.timeout_ms);
            asked.options.limit = asked.limit.value_or(row.limit);
        });
    }
}

AdminTarget find_target(const Asked& asked, const Environment& environment) {
    ListenAddress address;
    if (asked.admin && asked.config_file) {
        throw ConfigError("--admin and --config both say where to ask; name one of them");
    }
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
