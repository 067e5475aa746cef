// The wall around CLI11, which owns syntax and help; values are judged by load_config().
#include "nearkey/daemon/command_line.h"

#include "nearkey/daemon/ask_verbs.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>
#include <string_view>
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
    if (message.find("://") != std::string_view::npos) {
        return "a URL stands where none is expected: it belongs after --upstream";
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
    return name + (is_twice ? " stands there twice; name it once" : " needs a value");
}

// CLI11 would take the next argument for the value of "--name=".
bool lacks_value(std::string_view argument) {
    return argument.starts_with("--") && argument.find('=') == argument.size() - 1;
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
    // Not before: a verb takes over what is there when it is added.
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
