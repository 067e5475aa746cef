#include "load_options.h"

#include <doctest/doctest.h>

#include <string>
#include <variant>
#include <vector>

using namespace nearkey::bench;  // style-ok(using-namespace): a test of that namespace alone

namespace {

std::string mistake(const std::vector<const char*>& arguments) {
    const auto parsed = parse_load_options(arguments);
    const auto* const text = std::get_if<std::string>(&parsed);
    return text ? *text : "";
}

}  // namespace

TEST_CASE("load options: every option reaches its member") {
    const std::vector<const char*> arguments = {
        "--unix",        "/s",        "--command",  "mget",      "--draw", "zipf",      "--zipf",
        "0.9",           "--clients", "1000",       "--threads", "3",      "--seconds", "1.5",
        "--value-bytes", "16384",     "--pipeline", "64",        "--keys", "4096",      "--warm-up",
        "0.25",          "--prefix",  "k16:",       "--watch",   "12,345"};
    const auto parsed = parse_load_options(arguments);
    REQUIRE(std::holds_alternative<LoadOptions>(parsed));
    const auto& options = std::get<LoadOptions>(parsed);
    CHECK(options.unix_path == "/s");
    CHECK(options.command == LoadCommand::Mget);
    CHECK(options.draw == LoadDraw::Zipf);
    CHECK(options.zipf_exponent == 0.9);
    CHECK(options.clients == 1000);
    CHECK(options.threads == 3);
    CHECK(options.seconds == 1.5);
    CHECK(options.value_bytes == 16384);
    CHECK(options.pipeline == 64);
    CHECK(options.keys == 4096);
    CHECK(options.warm_up_s == 0.25);
    CHECK(options.prefix == "k16:");
    CHECK(options.watched == std::vector<int>{12, 345});
}

TEST_CASE("load options: no more threads than clients") {
    const std::vector<const char*> arguments = {"--port",    "7000", "--requests", "5",
                                                "--clients", "1",    "--threads",  "8"};
    const auto parsed = parse_load_options(arguments);
    REQUIRE(std::holds_alternative<LoadOptions>(parsed));
    CHECK(std::get<LoadOptions>(parsed).threads == 1);
    CHECK(std::get<LoadOptions>(parsed).tcp_port == 7000);
}

TEST_CASE("load options: a mistake is named") {
    CHECK(mistake({}) == "one of --unix and --port");
    CHECK(mistake({"--unix", "/s", "--port", "1"}) == "one of --unix and --port");
    CHECK(mistake({"--unix", "/s"}) == "one of --seconds and --requests");
    CHECK(mistake({"--unix", "/s", "--seconds", "1", "--requests", "1"}) ==
          "one of --seconds and --requests");
    CHECK(mistake({"--unix", "/s", "--seconds", "1", "--draw", "sequence"}) ==
          "--draw sequence needs --requests");
    CHECK(mistake({"--unix", "/s", "--requests", "1", "--warm-up", "1"}) ==
          "--warm-up goes with --seconds");
    CHECK(mistake({"--unix"}) == "--unix: not ''");
    CHECK(mistake({"--nonsense", "1"}) == "no such option: --nonsense");
    CHECK(mistake({"--command", "del"}) == "--command: not 'del'");
    CHECK(mistake({"--draw", "gauss"}) == "--draw: not 'gauss'");
    CHECK(mistake({"--watch", "1,"}) == "--watch: not '1,'");
    CHECK(mistake({"--watch", "a"}) == "--watch: not 'a'");
    for (const char* const wrong : {"0", "-1", "1x", "", "1e9", "nan", "99999999999999999999"}) {
        CHECK(mistake({"--clients", wrong}) == "--clients: not '" + std::string(wrong) + "'");
        CHECK(mistake({"--pipeline", wrong}) == "--pipeline: not '" + std::string(wrong) + "'");
        CHECK(mistake({"--seconds", wrong}) == "--seconds: not '" + std::string(wrong) + "'");
    }
}
