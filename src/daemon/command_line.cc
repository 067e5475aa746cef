// The wall around CLI11, which owns syntax and help; values are judged by load_config().
#include "nearkey/daemon/command_line.h"

#include "nearkey/base/log.h"
#include "nearkey/base/parse_number.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>
#include <string_view>
#include <variant>
#include <vector>

#ifndef NEARKEY_VERSION
#define NEARKEY_VERSION "dev"
#endif

namespace nearkey {
namespace {

constexpr const char* kSources =
    R"(Sources, the stronger first: flags; CACHE_URL (the URL of Valkey) and NEARKEY_CONFIG (a file)
in the environment; the file; defaults. No file is read unless it is named.
)";

constexpr const char* kFooter = R"(
Examples:
  nearkey serve                                   serves, with a private Valkey of its own
  nearkey serve --upstream valkey://10.0.0.7      serves for the Valkey on that host
  nearkey serve --config /etc/nearkey/nearkey.toml --set log.level=debug
  nearkey check --config /etc/nearkey/nearkey.toml
  nearkey check --comments                        every option, its default and what it means
  nearkey ready --timeout-ms 200                  for a probe of systemd or Kubernetes
  nearkey reload --config /etc/nearkey/nearkey.toml
  nearkey clients --admin /run/nearkey/admin.sock

Exit codes:
  serve   0 stopped by a signal, 1 stopped by an error, 2 wrong command line or configuration
  check   0 the configuration is sound, 2 it is not: FILE:LINE and the key on stderr
  ready   0 ready, 1 not ready, 2 nobody answers (or a wrong command line)
  others  0 done, 1 nearkey refused, 2 nobody answers (or a wrong command line)
)";

constexpr const char* kServeCodes =
    "\nExit codes: 0 stopped by a signal, 1 stopped by an error, 2 wrong command line or "
    "configuration\n";
constexpr const char* kCheckCodes =
    "\nExit codes: 0 the configuration is sound, 2 it is not: FILE:LINE and the key on stderr\n";

// Appends each value as it was written, without CLI11's conversions.
CLI::Option* add_repeatable(CLI::App& verb, const std::string& name,
                            std::vector<std::string>& values, const std::string& help) {
    const auto append = [&values](const CLI::results_t& results) {
        values.insert(values.end(), results.begin(), results.end());
        return true;
    };
    return verb.add_option(name, append, help)
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

CLI::Option* add_single(CLI::App& verb, const std::string& name, std::optional<std::string>& value,
                        const std::string& help) {
    const auto keep = [&value](const CLI::results_t& results) {
        value = results.at(0);
        return true;
    };
    return verb.add_option(name, keep, help)->expected(1);
}

void add_source_flags(CLI::App& verb, ConfigSources& sources) {
    add_single(verb, "--config", sources.config_file, "A TOML file")->type_name("FILE");
    add_single(verb, "--upstream", sources.upstream, "Where Valkey is (upstream.url)")
        ->type_name("URL");
    add_repeatable(verb, "--listen", sources.listen,
                   "Where clients connect: a path or tcp:127.0.0.1:PORT; repeatable")
        ->type_name("ADDR");
    add_single(verb, "--admin", sources.admin, "Probes and metrics: a path or 127.0.0.1:PORT")
        ->type_name("ADDR");
    add_repeatable(verb, "--set", sources.set, "Any option; repeatable")
        ->type_name("table.key=value");
}

// One line, and no URL in it: an upstream without its flag may carry a password.
std::string mistake(std::string_view message) {
    const bool is_of_words = message.find("not expected") != std::string_view::npos;
    if (is_of_words && message.find("://") != std::string_view::npos) {
        return "a URL was not expected here: it belongs after --upstream";
    }
    return ConfigError(std::string(message)).what();
}

int fail(std::string_view message, std::ostream& err) {
    err << "nearkey: " << mistake(message) << " (see nearkey --help)\n";
    return kExitMistaken;
}

// In place of CLI11's "--upstream: At Most 1 required but received 2".
std::string wrong_count(std::string_view message) {
    const std::string name(message.substr(0, message.find(':')));
    const bool is_twice = message.find("received") != std::string_view::npos;
    return name + (is_twice ? " is given twice; name it once" : " needs a value");
}

// CLI11 would take the next argument for the value of "--name=".
bool lacks_value(std::string_view argument) {
    return argument.starts_with("--") && argument.find('=') == argument.size() - 1;
}

// --- the verbs that ask a running nearkey ---
//
// One row each, from which syntax and help are made: a verb is a row here and a function in cli/.

constexpr int kTimeoutMsMax = 3600 * 1000;
constexpr int kTimeoutMs = 1000;
constexpr uint64_t kIntervalMsMin = 50;
constexpr uint64_t kIntervalMsMax = 3600 * 1000;
// The options of a verb besides --admin, --config and --timeout-ms.
enum Takes : unsigned { kNothing = 0, kJson = 1, kLimit = 2, kLevel = 4, kPace = 8 };

struct AskVerb {
    const char* name;
    AskFunction ask;
    const char* help;
    const char* more;  // below its options, with the exit codes
    unsigned takes = kNothing;
    int timeout_ms = kTimeoutMs;
    uint64_t limit = 0;  // kLimit: the default and the greatest value of --limit
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
    {"nodes", run_nodes, "List the nodes of the cluster behind a running nearkey",
     "Those that own slots. --json prints /nodes.\n", kJson | kLimit, kTimeoutMs, 100, 1000},
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

// The arguments behind the verb. CLI11 fills it, and refers to it while it lives.
struct Asked {
    AskFunction ask = nullptr;  // null: another verb, or none
    AskOptions options;
    std::optional<std::string> admin;
    std::optional<std::string> config_file;
    std::optional<int> timeout_ms;
    std::optional<uint64_t> limit;
};

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

// The address to ask: --admin, or the one of the configuration (--config, NEARKEY_CONFIG) or of the
// defaults. Throws ConfigError.
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

}  // namespace

Invocation parse_command_line(std::span<const char* const> arguments,
                              const Environment& environment, std::ostream& out,
                              std::ostream& err) {
    Invocation invocation;
    invocation.sources.environment = environment;
    invocation.sources.arguments.assign(arguments.begin(), arguments.end());
    Asked asked;

    CLI::App app("nearkey: a sidecar caching proxy for Valkey", "nearkey");
    app.set_version_flag("--version", "nearkey " NEARKEY_VERSION);
    app.require_subcommand(0, 1);
    CLI::App& serve = *app.add_subcommand("serve", "Serve until SIGTERM or SIGINT");
    CLI::App& check = *app.add_subcommand("check", "Print the configuration that serve would use");
    serve.footer(std::string(kSources) + kServeCodes);
    check.footer(std::string(kSources) + kCheckCodes);
    add_ask_verbs(app, asked);
    // Not before: a verb copies the footer that is set when it is added.
    app.footer(std::string(kSources) + kFooter);
    add_source_flags(serve, invocation.sources);
    add_source_flags(check, invocation.sources);
    check.add_flag("--comments", invocation.comments, "Say what each option means");

    const auto end = arguments.end();
    if (const auto found = std::find_if(arguments.begin(), end, lacks_value); found != end) {
        invocation.exit_code = fail(std::string(*found) + " needs a value", err);
        return invocation;
    }
    try {
        app.parse(static_cast<int>(arguments.size()), arguments.data());
    } catch (const CLI::Success& success) {
        invocation.exit_code = app.exit(success, out, err);  // --help or --version.
        return invocation;
    } catch (const CLI::ArgumentMismatch& error) {
        invocation.exit_code = fail(wrong_count(error.what()), err);
        return invocation;
    } catch (const CLI::ParseError& error) {
        invocation.exit_code = fail(error.what(), err);
        return invocation;
    }

    if (serve.parsed()) {
        invocation.verb = Invocation::Verb::Serve;
    } else if (check.parsed()) {
        invocation.verb = Invocation::Verb::Check;
    } else if (asked.ask != nullptr) {
        invocation.verb = Invocation::Verb::Ask;
        invocation.ask = asked.ask;
        invocation.ask_options = asked.options;
        try {
            invocation.ask_options.target = find_target(asked, environment);
        } catch (const ConfigError& error) {
            invocation.exit_code = fail(error.what(), err);
        }
    } else {
        err << app.help();
        invocation.exit_code = kExitMistaken;
    }
    return invocation;
}

}  // namespace nearkey
