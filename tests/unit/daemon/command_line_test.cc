// The command line: what becomes of the arguments, what is printed, and the exit codes.
#include "nearkey/daemon/command_line.h"

#include <doctest/doctest.h>

#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "nearkey/cli/ask.h"

namespace nearkey::command_line_test {
namespace {

struct Outcome {
    Invocation invocation;
    std::string out;
    std::string err;
};

Outcome parse(std::initializer_list<const char*> arguments) {
    std::vector<const char*> all = {"nearkey"};
    all.insert(all.end(), arguments);
    std::ostringstream out;
    std::ostringstream err;
    Invocation invocation = parse_command_line(all, Environment{}, out, err);
    return {std::move(invocation), out.str(), err.str()};
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// The one line on stderr, of an Outcome that must be a mistake.
std::string mistake(std::initializer_list<const char*> arguments) {
    const Outcome outcome = parse(arguments);
    CHECK(outcome.invocation.exit_code == kExitMistaken);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.starts_with("nearkey: "));
    CHECK(outcome.err.find('\n') == outcome.err.size() - 1);
    return outcome.err;
}

TEST_CASE("command line: serve takes every source, repeated flags in their order") {
    const Outcome outcome =
        parse({"serve", "--config", "f.toml", "--upstream", "valkey://h", "--listen", "/a",
               "--listen=tcp:127.0.0.1:7000", "--admin", "/b", "--set", "log.level=debug", "--set",
               "server.listen=[x,y]", "--set", "upstream.client_name="});
    CHECK(outcome.invocation.verb == Invocation::Verb::Serve);
    CHECK_FALSE(outcome.invocation.exit_code);
    const ConfigSources& sources = outcome.invocation.sources;
    CHECK(sources.config_file == "f.toml");
    CHECK(sources.upstream == "valkey://h");
    CHECK(sources.listen == std::vector<std::string>{"/a", "tcp:127.0.0.1:7000"});
    CHECK(sources.admin == "/b");
    CHECK(sources.set == std::vector<std::string>{"log.level=debug", "server.listen=[x,y]",
                                                  "upstream.client_name="});
    CHECK(outcome.out.empty());
    CHECK(outcome.err.empty());
}

TEST_CASE("command line: what is not named is not set") {
    const Outcome outcome = parse({"check"});
    CHECK(outcome.invocation.verb == Invocation::Verb::Check);
    CHECK_FALSE(outcome.invocation.comments);
    CHECK_FALSE(outcome.invocation.sources.config_file);
    CHECK_FALSE(outcome.invocation.sources.upstream);
    CHECK_FALSE(outcome.invocation.sources.admin);
    CHECK(outcome.invocation.sources.listen.empty());
    CHECK(outcome.invocation.sources.set.empty());
    CHECK(parse({"check", "--comments"}).invocation.comments);
}

TEST_CASE("command line: odd values arrive as they were written") {
    const Outcome outcome = parse({"serve", "--upstream", "-x", "--set", "{}", "--set", "%%",
                                   "--listen", "[/a]", "--config", ""});
    CHECK_FALSE(outcome.invocation.exit_code);
    CHECK(outcome.invocation.sources.upstream == "-x");
    CHECK(outcome.invocation.sources.set == std::vector<std::string>{"{}", "%%"});
    CHECK(outcome.invocation.sources.listen == std::vector<std::string>{"[/a]"});
    CHECK(outcome.invocation.sources.config_file == "");
}

TEST_CASE("command line: ready knows where to ask, and how long") {
    const Outcome plain = parse({"ready"});
    CHECK(plain.invocation.verb == Invocation::Verb::Ask);
    CHECK((plain.invocation.ask == run_ready));
    CHECK(plain.invocation.ask_options.target.address == "/run/nearkey/admin.sock");
    CHECK(plain.invocation.ask_options.target.timeout_ms == 1000);
    const Outcome named = parse({"ready", "--admin", "127.0.0.1:7001", "--timeout-ms", "200"});
    CHECK_FALSE(named.invocation.exit_code);
    CHECK(named.invocation.ask_options.target.address == "127.0.0.1:7001");
    CHECK(named.invocation.ask_options.target.timeout_ms == 200);
}

TEST_CASE("command line: ready refuses a wrong address and a wrong timeout") {
    CHECK(contains(mistake({"ready", "--admin", "10.0.0.1:80"}), "10.0.0.1:80: allowed is"));
    for (const char* text : {"0", "-1", "x", "1x", "3600001", "99999999999999999999"}) {
        INFO(text);
        CHECK(contains(mistake({"ready", "--timeout-ms", text}), "--timeout-ms"));
    }
    mistake({"ready", "--upstream", "valkey://h"});
}

TEST_CASE("command line: --version and --help print and end with 0") {
    const Outcome version = parse({"--version"});
    CHECK(version.invocation.exit_code == kExitOk);
    CHECK(version.out.starts_with("nearkey "));
    CHECK(version.out.find('\n') == version.out.size() - 1);
    const Outcome help = parse({"--help"});
    CHECK(help.invocation.exit_code == kExitOk);
    CHECK(help.err.empty());
    for (const char* part : {"serve", "check", "ready", "Exit codes", "Examples", "CACHE_URL"}) {
        CHECK(contains(help.out, part));
    }
    const Outcome serve = parse({"serve", "--help"});
    CHECK(serve.invocation.exit_code == kExitOk);
    for (const char* part : {"--config", "--upstream", "--listen", "--admin", "--set"}) {
        CHECK(contains(serve.out, part));
    }
}

TEST_CASE("command line: no verb is a mistake that shows the help") {
    const Outcome outcome = parse({});
    CHECK(outcome.invocation.verb == Invocation::Verb::None);
    CHECK(outcome.invocation.exit_code == kExitMistaken);
    CHECK(outcome.out.empty());
    CHECK(contains(outcome.err, "Exit codes"));
}

TEST_CASE("command line: what is unknown, lacking or double is refused in one line") {
    CHECK(contains(mistake({"bogus"}), "bogus"));
    CHECK(contains(mistake({"serve", "extra"}), "extra"));
    CHECK(contains(mistake({"serve", "a\nb"}), "a?b"));
    CHECK(contains(mistake({"serve", "--lis", "/a"}), "--lis"));
    CHECK(contains(mistake({"serve", "--upstream"}), "--upstream"));
    CHECK(
        contains(mistake({"serve", "--upstream=", "--config", "f"}), "--upstream= needs a value"));
    CHECK(contains(mistake({"serve", "--upstream", "a", "--upstream", "b"}), "--upstream"));
    mistake({"serve", "--listen", "/a", "/b"});
    mistake({"serve", "check"});
    mistake({"--config", "f", "serve"});
}

TEST_CASE("command line: a URL without its flag is not shown") {
    const std::string message = mistake({"serve", "redis://:hunter2@h"});
    CHECK_FALSE(contains(message, "hunter2"));
    CHECK(contains(message, "--upstream"));
}

TEST_CASE("check: prints the configuration, or one line that says what is wrong") {
    std::ostringstream out;
    std::ostringstream err;
    Invocation invocation = parse({"check", "--listen", "tcp:127.0.0.1:7000"}).invocation;
    CHECK(run_check(invocation, out, err) == kExitOk);
    CHECK(out.str().starts_with(
        "# listens on 127.0.0.1:7000\n# admin on /run/nearkey/admin.sock\n\n[upstream]\nurl = "));
    CHECK(err.str().empty());

    invocation.sources.set = {"log.level=loud"};
    out.str("");
    CHECK(run_check(invocation, out, err) == kExitMistaken);
    CHECK(out.str().empty());
    CHECK(err.str() ==
          "nearkey: --set: log.level = \"loud\": allowed is one of debug, info, "
          "warning, error\n");
}

TEST_CASE("check: output that cannot be written is an error") {
    std::ostringstream out;
    std::ostringstream err;
    out.setstate(std::ios::badbit);
    CHECK(run_check(parse({"check"}).invocation, out, err) == kExitMistaken);
    CHECK(contains(err.str(), "could not be written"));
}

}  // namespace
}  // namespace nearkey::command_line_test
