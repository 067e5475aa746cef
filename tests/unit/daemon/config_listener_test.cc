// What a [[listener]] says, and what it has where it says nothing.
#include "nearkey/daemon/config.h"

#include "nearkey/daemon/accounts.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <fstream>
#include <string>

namespace nearkey::config_listener_test {
namespace {

Config load(const std::string& text) {
    const TemporaryDirectory folder;
    const std::string path = folder / "n.toml";
    std::ofstream(path, std::ios::binary) << text;
    ConfigSources sources;
    sources.config_file = path;
    return load_config(sources);
}

// The message behind its place, or "".
std::string error_of(const std::string& text) {
    try {
        for (const Listener& listener : listeners(load(text), {}))
            resolve_accounts(listener);
        return "";
    } catch (const ConfigError& error) {
        const std::string message = error.what();
        CHECK(message.find('\n') == std::string::npos);
        return message;
    }
}

bool contains(const std::string& text, const std::string& part) {
    const bool found = text.find(part) != std::string::npos;
    if (!found) MESSAGE(text, " lacks ", part);
    return found;
}

const std::string kListener = "[[listener]]\naddress = \"/a.sock\"\n";

}  // namespace

TEST_CASE("listener: what it does not say is said by [server], [limits] and the URL") {
    const Config config = load(
        "[upstream]\nurl = \"valkey://h/5\"\n"
        "[server]\nlisten = [\"/s.sock\"]\nlisten_mode = \"0600\"\nlisten_group = \"7\"\n"
        "[limits]\nclients_max = 9\ninput_per_client_max = \"2KiB\"\n" +
        kListener);
    const auto all = listeners(config, {});
    REQUIRE(all.size() == 2);
    for (const Listener& each : all) {
        CHECK(each.options.database == 5);
        CHECK(each.options.mode == 0600);
        CHECK(each.options.owner.empty());
        CHECK(each.options.group == "7");
        CHECK(each.options.limits.clients_max == 9);
        CHECK(each.options.limits.input_per_client_max == 2048);
        CHECK(each.options.limits.in_flight_per_client_max == 1024);
    }
}

TEST_CASE("listener: what it says is its own") {
    const Config config =
        load("[upstream]\nurl = \"valkey://h/5\"\n" + kListener +
             "database = 0\nmode = \"0666\"\nowner = \"1\"\ngroup = \"2\"\n"
             "allow_users = [\"root\", \"77\"]\nallow_groups = [\"root\"]\nclients_max = 1\n"
             "in_flight_per_client_max = 2\ncommands_per_turn_max = 3\n"
             "output_per_client_high_water = 4\noutput_per_client_max = 5\n"
             "input_per_client_max = 6\n" +
             "[[listener]]\naddress = \"/b.sock\"\n");
    const auto all = listeners(config, {});
    REQUIRE(all.size() == 2);
    const ListenerOptions& own = all[0].options;
    CHECK(own.database == 0);
    CHECK(own.mode == 0666);
    CHECK(own.limits.clients_max == 1);
    CHECK(own.limits.in_flight_per_client_max == 2);
    CHECK(own.limits.commands_per_turn_max == 3);
    CHECK(own.limits.output_per_client_high_water == 4);
    CHECK(own.limits.output_per_client_max == 5);
    CHECK(own.limits.input_per_client_max == 6);
    const ListenerAccounts accounts = resolve_accounts(all[0]);
    CHECK(accounts.owner == 1);
    CHECK(accounts.group == 2);
    CHECK(accounts.allow_users == std::vector<uid_t>{0, 77});
    CHECK(accounts.allow_groups == std::vector<gid_t>{0});
    CHECK(all[1].options.database == 5);
    CHECK(all[1].options.limits.clients_max == 10000);
    CHECK(resolve_accounts(all[1]).owner == SocketFile::kOurs);
}

TEST_CASE("listener: what can't be is refused with the listener's name") {
    CHECK(contains(error_of(kListener + "owner = \"nobody-of-this-name\"\n"),
                   "the listener /a.sock: owner = \"nobody-of-this-name\": this system knows no "
                   "such user"));
    CHECK(contains(error_of(kListener + "allow_groups = [\"4294967295\"]\n"),
                   "allow_groups = \"4294967295\": this system knows no such group"));
    CHECK(contains(error_of(kListener + "allow_users = [\"a b\"]\n"), "n.toml:3: allow_users = "));
    CHECK(contains(error_of(kListener + "allow_users = [\"\"]\n"), "must not be empty"));
    CHECK(contains(error_of("[[listener]]\naddress = \"tcp:127.0.0.1:7000\"\n"
                            "allow_users = [\"root\"]\n"),
                   "allow_users and allow_groups need a Unix socket"));
    CHECK(contains(error_of(kListener + "output_per_client_max = \"1KiB\"\n"),
                   "[[listener]] number 1, /a.sock: output_per_client_high_water = 1MiB: must not "
                   "be above output_per_client_max = 1KiB"));
    CHECK(contains(error_of(kListener + "mode = 660\n"), "n.toml:3: mode = 660"));
    CHECK(contains(error_of(kListener + "face = \"cluster\"\n"),
                   "/a.sock: face = \"cluster\" needs an address tcp:127.0.0.1:PORT"));
    CHECK(contains(error_of(kListener + "announce = \"h:1\"\n"),
                   "announce goes only together with face = \"cluster\""));
    for (const char* const announce : {"h", ":1", "h:0", "a b:1", "::1:5"}) {
        CHECK(contains(error_of("[[listener]]\naddress = \"tcp:127.0.0.1:7000\"\n"
                                "face = \"cluster\"\nannounce = \"" +
                                std::string(announce) + "\"\n"),
                       "n.toml:4: announce = "));
    }
    CHECK(error_of("[[listener]]\naddress = \"tcp:[::1]:7000\"\nface = \"cluster\"\n"
                   "announce = \"[fd00::1]:7\"\n") == "");
}

TEST_CASE("listener: reads from replicas are refused where it is known that there are none") {
    const std::string listener = kListener + "read_from = \"replica\"\n";
    const std::string expected = "so that read_from = \"replica\" of a [[listener]] has no effect";
    const auto of = [&](const std::string& upstream) {
        return error_of("[upstream]\n" + upstream + "\n" + listener);
    };
    CHECK(of("url = \"valkey+cluster://h\"") == "");
    CHECK(of("url = \"valkey+cluster://h\"\ncluster = \"off\"") == "");
    // It may be a node of one.
    CHECK(of("url = \"valkey://h\"") == "");
    CHECK(of("url = \"unix:///s\"") == "");
    CHECK(contains(of("url = \"valkey://h\"\ncluster = \"off\""), "n.toml:3: upstream.cluster"));
    CHECK(contains(of("url = \"valkey://h\"\ncluster = \"off\""), expected));
    CHECK(contains(of("url = \"sentinel://h/name\""), "n.toml:2: upstream.url"));
    CHECK(contains(of("url = \"sentinel://h/name\""), expected));
    CHECK(contains(of("url = \"managed:\""), expected));
    CHECK(contains(error_of(kListener + "read_from = \"any\"\n"), "n.toml:3: read_from = "));
    CHECK(reads_replicas(load("[upstream]\nurl = \"valkey://h\"\n" + listener)));
    CHECK_FALSE(reads_replicas(load(kListener)));
}

}  // namespace nearkey::config_listener_test
