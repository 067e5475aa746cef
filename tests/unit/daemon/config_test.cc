// The configuration as the operator sees it: precedence, refusals, defaults, what is printed.
#include "nearkey/daemon/config.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "nearkey/daemon/config_option.h"

namespace nearkey::config_test {
namespace {

// A folder of our own, removed at the end.
class ScratchFolder {
public:
    ScratchFolder() {
        std::string name = std::filesystem::temp_directory_path() / "nearkey-config-XXXXXX";
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~ScratchFolder() { std::filesystem::remove_all(path_); }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;

    std::string file(const std::string& text) const {
        const std::string path = path_ / "n.toml";
        std::ofstream(path, std::ios::binary) << text;
        return path;
    }
    std::string path() const { return path_; }

private:
    std::filesystem::path path_;
};

std::string error_of(const ConfigSources& sources) {
    try {
        load_config(sources);
    } catch (const ConfigError& error) {
        const std::string message = error.what();
        CHECK(message.find('\n') == std::string::npos);
        return message;
    }
    return "(no error)";
}

bool contains(const std::string& text, const std::string& part) {
    const bool found = text.find(part) != std::string::npos;
    if (!found) MESSAGE(text, " lacks ", part);
    return found;
}

ConfigSources with_set(std::vector<std::string> settings) {
    ConfigSources sources;
    sources.set = std::move(settings);
    return sources;
}

ConfigSources with_file(const std::string& path) {
    ConfigSources sources;
    sources.config_file = path;
    return sources;
}

ConfigSources with_variable(const std::string& name, const std::string& value) {
    ConfigSources sources;
    sources.environment.variables[name] = value;
    return sources;
}

std::string contents(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

TEST_CASE("config: config/nearkey.toml equals the built-in defaults") {
    const Config loaded = load_config(with_file("config/nearkey.toml"));
    CHECK(to_toml(loaded) == to_toml(Config{}));
    // Literally too: each option stands there, with the comment that its row gives it.
    CHECK(contents("config/nearkey.toml") == to_commented_toml(Config{}));
}

TEST_CASE("config: without any source the defaults hold") {
    CHECK(to_toml(load_config({})) == to_toml(Config{}));
    CHECK(load_config({}).upstream.url == "managed:");
}

TEST_CASE("config: what is printed loads again to the same") {
    ConfigSources sources =
        with_set({"upstream.url=valkeys://u@h/3", "limits.bulk_max=1000", "server.listen_mode=0600",
                  "server.listen=/a b\"\\/x,/y", "log.level=debug", "upstream.client_name="});
    const std::string printed = to_toml(load_config(sources));
    CHECK(contains(printed, "url = \"valkeys://u@h:6379/3\"\n"));
    CHECK(contains(printed, "bulk_max = \"1000B\"\n"));
    CHECK(contains(printed, "listen = [\"/a b\\\"\\\\/x\", \"/y\"]\n"));
    CHECK(contains(printed, "listen_mode = \"0600\"\n"));
    const ScratchFolder folder;
    CHECK(to_toml(load_config(with_file(folder.file(printed)))) == printed);
}

TEST_CASE("config: flags come before the environment, then the file, then the defaults") {
    const ScratchFolder folder;
    ConfigSources sources = with_file(folder.file(
        "[upstream]\nurl = \"valkey://file\"\nconnections = 2\n[server]\nlisten = [\"/file\"]\n"));
    CHECK(load_config(sources).upstream.url == "valkey://file");
    CHECK(load_config(sources).upstream.connections == 2);
    CHECK(load_config(sources).upstream.connections_max == 64);

    sources.environment.variables["CACHE_URL"] = "valkey://environment";
    CHECK(load_config(sources).upstream.url == "valkey://environment");
    sources.set = {"upstream.url=valkey://set", "upstream.connections=3", "server.listen=/set"};
    CHECK(load_config(sources).upstream.url == "valkey://set");
    CHECK(load_config(sources).upstream.connections == 3);
    CHECK(load_config(sources).server.listen == std::vector<std::string>{"/set"});

    sources.upstream = "valkey://flag";
    sources.listen = {"/one", "tcp:127.0.0.1:7000"};
    sources.admin = "127.0.0.1:7001";
    const Config config = load_config(sources);
    CHECK(config.upstream.url == "valkey://flag");
    CHECK(config.server.listen == sources.listen);
    CHECK(config.server.admin == "127.0.0.1:7001");
}

TEST_CASE("config: NEARKEY_CONFIG names the file, --config names it more strongly") {
    const ScratchFolder folder;
    const std::string path = folder.file("log.level = \"debug\"\n");
    CHECK(load_config(with_variable("NEARKEY_CONFIG", path)).log.level == "debug");
    CHECK(load_config(with_variable("NEARKEY_CONFIG", "")).log.level == "info");
    ConfigSources sources = with_variable("NEARKEY_CONFIG", "/nonexistent");
    CHECK(contains(error_of(sources), "/nonexistent: cannot read"));
    CHECK(contains(error_of(sources), "(named by NEARKEY_CONFIG): No such file or directory"));
    sources.config_file = path;
    CHECK(load_config(sources).log.level == "debug");
}

TEST_CASE("config: an error in the file names FILE:LINE, the key, the value and what is allowed") {
    const ScratchFolder folder;
    const auto refused = [&](const std::string& text) {
        const std::string path = folder.file(text);
        return error_of(with_file(path)).substr(path.size());
    };
    CHECK(refused("[upstream]\n\nconnections = 65\n") ==
          ":3: upstream.connections = 65: allowed is an integer from 1 to 64");
    CHECK(refused("[upstream]\nconnections = \"2\"\n") ==
          ":2: upstream.connections = \"2\": allowed is an integer from 1 to 64");
    CHECK(refused("# a\n[log]\nlevel = \"loud\"\n") ==
          ":3: log.level = \"loud\": allowed is one of debug, info, warning, error");
    CHECK(refused("[upstream]\nquue_timeout_ms = 5\n") ==
          ":2: unknown key upstream.quue_timeout_ms; the nearest known one is "
          "upstream.queue_timeout_ms");
    CHECK(contains(refused("\n[upstream]\n[server]\nbacklog = 1.5\n"), ":4: server.backlog = 1.5"));
    CHECK(contains(refused("[limits]\nurl = \"managed:\"\n"), "nearest known one is upstream.url"));
    CHECK(contains(refused("\n[upstrem]\n"), ":2: unknown table upstrem"));
    CHECK(contains(refused("[logg]\nlevel = \"info\"\n"), ":2: unknown key logg.level"));
    CHECK(contains(refused("[upstream.x]\n"), ":1: unknown key upstream.x"));
    CHECK(contains(refused("[upstream.url]\n"), "upstream.url = (a table)"));
    CHECK(contains(refused("[[log]]\nlevel = \"info\"\n"), "log is a table of options"));
    CHECK(contains(refused("log = 1\n"), "log is a table of options"));
    CHECK(contains(refused("\"log.level\" = \"info\"\n"), "unknown key \"log.level\""));
    CHECK(contains(refused("[server]\nlisten = [1]\n"), "something other than strings"));
    CHECK(contains(refused("[server]\nlisten = \"/a\"\n"), "allowed is a list of strings"));
}

TEST_CASE("config: a flag and a variable are named in their errors") {
    ConfigSources sources;
    sources.upstream = "h:6379";
    CHECK(error_of(sources).starts_with("--upstream: upstream.url = \"***\": a URL starts with"));
    CHECK(
        error_of(with_variable("CACHE_URL", "http://h")).starts_with("CACHE_URL: upstream.url ="));
    CHECK(error_of(with_set({"upstream.connections=0"})) ==
          "--set: upstream.connections = 0: allowed is an integer from 1 to 64");
    CHECK(contains(error_of(with_set({"upstream.connection=1"})), "is upstream.connections"));
    CHECK(error_of(with_set({"upstream.connections"})) ==
          "--set: write it as --set table.key=value");
    CHECK(error_of(with_set({"=1"})) == "--set: write it as --set table.key=value");
    CHECK(error_of(with_set({"upstream=1"})) ==
          "--set: upstream is a table of options, not a value; set upstream.KEY");
    sources.upstream.reset();
    sources.listen = {"/ok", "relative"};
    CHECK(error_of(sources).starts_with(
        "--listen: server.listen = [\"/ok\", \"relative\"]: allowed"));
}

TEST_CASE("config: no error and no print shows a password") {
    const ScratchFolder folder;
    ConfigSources sources;
    for (const char* url :
         {"redis://:hunter2@h:x", "redis://u:hunter2", "hunter2", "redis://hunter2 @h"}) {
        sources.upstream = url;
        CHECK(error_of(sources).find("hunter2") == std::string::npos);
        CHECK(error_of(with_variable("CACHE_URL", url)).find("hunter2") == std::string::npos);
        const std::string path = folder.file("[upstream]\nurl = \"" + std::string(url) + "\"\n");
        CHECK(error_of(with_file(path)).find("hunter2") == std::string::npos);
        // Where the quote is not closed, toml11 quotes the line; we do not.
        const std::string broken = folder.file("[upstream]\nurl = \"" + std::string(url) + "\n");
        CHECK(error_of(with_file(broken)).find("hunter2") == std::string::npos);
    }
    CHECK(error_of(with_set({"redis://:hunter2@h?db=1"})).find("hunter2") == std::string::npos);
    sources.upstream = "redis://:hunter2@h";
    CHECK(contains(to_toml(load_config(sources)), "url = \"valkey://:***@h:6379\"\n"));
}

TEST_CASE("config: CACHE_URL that names nearkey itself is refused in words") {
    ConfigSources sources =
        with_variable("CACHE_URL", "unix:///run/nearkey/../nearkey/nearkey.sock");
    CHECK(contains(error_of(sources), "CACHE_URL: "));
    CHECK(contains(error_of(sources), "this is nearkey's own listening address"));
    sources.upstream = "valkey://h";
    CHECK(load_config(sources).upstream.url == "valkey://h");
    sources.upstream.reset();
    sources.set = {"upstream.url=valkey://h"};
    CHECK(load_config(sources).upstream.url == "valkey://h");

    sources = ConfigSources{};
    sources.listen = {"tcp:127.0.0.1:7000"};
    for (const char* url : {"valkey://127.0.0.1:7000", "valkey://localhost:7000/1"}) {
        sources.upstream = url;
        CHECK(contains(error_of(sources), "nearkey's own listening address"));
    }
    sources.upstream = "valkey://127.0.0.1:7001";
    CHECK(load_config(sources).upstream.url == "valkey://127.0.0.1:7001");
    sources.upstream = "unix:///run/nearkey/admin.sock";
    CHECK(contains(error_of(sources), "server.admin: /run/nearkey/admin.sock is also"));
}

TEST_CASE("config: options that contradict each other are refused") {
    CHECK(
        error_of(with_set({"upstream.backoff_min_ms=2000"})) ==
        "--set: upstream.backoff_min_ms = 2000: must not be above upstream.backoff_max_ms = 1000");
    CHECK(error_of(with_set({"upstream.backoff_min_ms=2000", "upstream.backoff_max_ms=2000"})) ==
          "(no error)");
    CHECK(contains(error_of(with_set({"limits.output_per_client_max=1KiB"})),
                   "output_per_client_high_water = \"1MiB\": must not be above"));
    CHECK(contains(error_of(with_set({"upstream.connections=9", "upstream.connections_max=8"})),
                   "must not be above upstream.connections_max = 8"));
    CHECK(contains(error_of(with_set({"upstream.unready_after_ms=399"})), "heartbeat_interval_ms"));
    CHECK(contains(error_of(with_set({"upstream.tls_key_file=/k"})), "name both or neither"));
    CHECK(contains(error_of(with_set({"upstream.tls_cert_file=/c"})), "name both or neither"));
    CHECK(contains(error_of(with_set({"server.listen=/a/b,/a//b"})), "/a//b is given twice"));
    CHECK(contains(error_of(with_set({"server.listen=/a/b", "server.admin=/a/b"})), "is also"));
    CHECK(contains(error_of(with_set({"server.listen=/a/admin.sock"})), "is also"));
}

TEST_CASE("config: the address of server.metrics is of any interface, and its port is its own") {
    const auto parsed = [](std::string_view text) {
        const AddressResult result = parse_metrics_address(text);
        const auto* const address = std::get_if<ListenAddress>(&result);
        return address == nullptr ? "refused" : to_text(*address);
    };
    CHECK(parsed("0.0.0.0:9121") == "0.0.0.0:9121");
    CHECK(parsed("[::]:9121") == "[::]:9121");
    CHECK(parsed("[0:0::0]:1") == "[::]:1");
    CHECK(parsed("10.1.2.3:65535") == "10.1.2.3:65535");
    CHECK(parsed("[fd00::1]:80") == "[fd00::1]:80");
    for (const char* text :
         {"", ":9121", "9121", "*:9121", "localhost:9121", "0.0.0.0", "0.0.0.0:", "0.0.0.0:0",
          "0.0.0.0:65536", "0.0.0.0:9121x", "::9121", ":::9121", "[0.0.0.0]:1", "fd00::1:80",
          "[::]", "/run/metrics.sock", "tcp:0.0.0.0:9121", "1.2.3:4"}) {
        CAPTURE(text);
        CHECK(parsed(text) == "refused");
    }
    CHECK_FALSE(metrics_address({}));
    const Config config = load_config(with_set({"server.metrics=[0::0]:9121"}));
    CHECK(to_text(*metrics_address(config)) == "[::]:9121");
    for (const char* other : {"server.listen=tcp:127.0.0.1:9121", "server.listen=tcp:[::1]:9121",
                              "server.admin=127.0.0.1:9121"}) {
        CAPTURE(other);
        CHECK(contains(error_of(with_set({"server.metrics=0.0.0.0:9121", other})),
                       "--set: server.metrics = \"0.0.0.0:9121\": "));
    }
    CHECK(error_of(with_set({"server.metrics=10.0.0.1:9121", "server.admin=127.0.0.1:9121"})) ==
          "(no error)");
}

TEST_CASE("config: a default path that is too long for a socket is refused") {
    ConfigSources sources = with_variable("XDG_RUNTIME_DIR", "/" + std::string(100, 'x'));
    sources.environment.user_id = 1000;
    CHECK(contains(error_of(sources), "server.listen: its default is /xxx"));
    sources.listen = {"/" + std::string(100, 'x') + "/s"};
    CHECK(contains(error_of(sources), "server.admin: its default is /xxx"));
}

TEST_CASE("config: a file that cannot be read is refused with the reason") {
    const ScratchFolder folder;
    CHECK(contains(error_of(with_file(folder.path() + "/none")), "No such file or directory"));
    CHECK(contains(error_of(with_file(folder.path())), "(named by --config): it is a directory"));
    CHECK(contains(error_of(with_file("")), "the name of the configuration file is empty"));
    CHECK(contains(error_of(with_file("/dev/zero")), "it is larger than 1MiB"));
    const std::string path = folder.file("");
    CHECK(error_of(with_file(path)) == "(no error)");
    REQUIRE(chmod(path.c_str(), 0) == 0);
    // Root may read it all the same.
    if (geteuid() != 0) CHECK(contains(error_of(with_file(path)), "Permission denied"));
}

TEST_CASE("config: the default path follows systemd, root, XDG_RUNTIME_DIR and /tmp") {
    Environment environment;
    CHECK(default_listen_path(environment) == "/run/nearkey/nearkey.sock");
    environment.user_id = 1000;
    CHECK(default_listen_path(environment) == "/tmp/nearkey-1000/nearkey.sock");
    environment.variables["XDG_RUNTIME_DIR"] = "relative";
    CHECK(default_listen_path(environment) == "/tmp/nearkey-1000/nearkey.sock");
    environment.variables["XDG_RUNTIME_DIR"] = "/run/user/1000";
    CHECK(default_listen_path(environment) == "/run/user/1000/nearkey/nearkey.sock");
    environment.user_id = 0;
    CHECK(default_listen_path(environment) == "/run/nearkey/nearkey.sock");
    environment.variables["RUNTIME_DIRECTORY"] = "/run/cache:/run/other";
    CHECK(default_listen_path(environment) == "/run/cache/nearkey.sock");
}

TEST_CASE("config: the admin socket stands beside the first Unix listening socket") {
    const Environment environment;
    Config config;
    CHECK(admin_address(config, environment).path == "/run/nearkey/admin.sock");
    config.server.listen = {"tcp:127.0.0.1:7000"};
    CHECK(admin_address(config, environment).path == "/run/nearkey/admin.sock");
    CHECK(listen_addresses(config, environment).at(0).port == 7000);
    config.server.listen = {"tcp:[::1]:7000", "/a/b.sock", "/c/d.sock"};
    CHECK(admin_address(config, environment).path == "/a/admin.sock");
    CHECK(listen_addresses(config, environment).size() == 3);
    config.server.admin = "[::1]:9";
    CHECK(to_text(admin_address(config, environment)) == "[::1]:9");
}

TEST_CASE("config: [[listener]] adds addresses with choices of their own") {
    ScratchFolder folder;
    const std::string path = folder.file(
        "[server]\nlisten = [\"/a/a.sock\"]\n[[listener]]\naddress = \"/a/b.sock\"\n"
        "[[listener]]\nnear_cache = false\naddress = \"tcp:127.0.0.1:7000\"\n");
    const Config config = load_config(with_file(path));
    const auto all = listeners(config, {});
    REQUIRE(all.size() == 3);
    CHECK(all[0].options.near_cache);
    CHECK(to_text(all[1].address) == "/a/b.sock");
    CHECK(all[1].options.near_cache);
    CHECK(all[2].address.port == 7000);
    CHECK_FALSE(all[2].options.near_cache);
    const Config again = load_config(with_file(folder.file(to_toml(config))));
    CHECK(to_toml(again) == to_toml(config));
    ConfigSources sources = with_file(path);
    sources.listen = {"/c.sock"};
    CHECK(listeners(load_config(sources), {}).size() == 1);
}

TEST_CASE("config: a [[listener]] that is wrong is refused with its line") {
    ScratchFolder folder;
    const auto error = [&](const std::string& text) {
        return error_of(with_file(folder.file(text)));
    };
    CHECK(contains(error("[[listener]]\nnear_cache = true\n"),
                   "n.toml:2: [[listener]] number 1 has no address"));
    CHECK(contains(error("[[listener]]\naddress = \"/a.sock\"\ncolour = 1\n"),
                   "n.toml:3: unknown key colour in [[listener]]; the nearest known one is "));
    CHECK(contains(error("[[listener]]\naddress = \"a.sock\"\n"), "n.toml:2: address = "));
    CHECK(contains(error("[[listener]]\naddress = \"/a.sock\"\nnear_cache = 1\n"),
                   "n.toml:3: near_cache = 1"));
    CHECK(contains(error("[[listener]]\naddress = \"/a.sock\"\n[server]\nlisten = "
                         "[\"/a.sock\"]\n"),
                   "/a.sock is given twice"));
    CHECK(contains(error("[listener]\naddress = \"/a.sock\"\n"),
                   "n.toml:2: a listener is written [[listener]], with two brackets"));
    CHECK(contains(error("[\"listener[x]\"]\naddress = \"/a.sock\"\n"), "unknown"));
}

TEST_CASE("config: listening addresses are absolute paths or loopback ports") {
    const auto parse = [](const std::string& text) {
        const AddressResult result = parse_listen_address(text);
        const auto* const address = std::get_if<ListenAddress>(&result);
        return address == nullptr ? "refused" : to_text(*address);
    };
    CHECK(parse("/run/x.sock") == "/run/x.sock");
    CHECK(parse("tcp:127.0.0.1:7000") == "127.0.0.1:7000");
    CHECK(parse("tcp:[::1]:65535") == "[::1]:65535");
    CHECK(parse("/" + std::string(106, 'a')).size() == 107);
    CHECK(parse("/" + std::string(107, 'a')) == "refused");
    for (const char* text :
         {"", "x.sock", "/run/", "tcp:", "tcp:0.0.0.0:7000", "tcp:localhost:7000", "tcp:10.0.0.1:1",
          "tcp:::1:7000", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:0",
          "tcp:127.0.0.1:65536", "tcp:127.0.0.1:7x", "127.0.0.1:7000", "unix:/x"}) {
        INFO(text);
        CHECK(parse(text) == "refused");
    }
    CHECK(std::holds_alternative<ListenAddress>(parse_admin_address("127.0.0.1:7000")));
    CHECK(std::holds_alternative<AddressError>(parse_admin_address("tcp:127.0.0.1:7000")));
    CHECK(std::holds_alternative<AddressError>(parse_admin_address("0.0.0.0:7000")));
}

}  // namespace
}  // namespace nearkey::config_test
