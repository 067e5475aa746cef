// The table of options, and each type of value: what it takes, refuses and prints.
#include "nearkey/daemon/config_option.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace nearkey::config_option_test {
namespace {

// "" if the value was taken, else what is wrong with it.
std::string set(std::string_view key, const std::string& text, Config& config) {
    const Option* const option = find_option(key);
    REQUIRE(option != nullptr);
    return assign(*option, raw_from_text(*option, text), config).value_or("");
}

std::string set(std::string_view key, const std::string& text) {
    Config config;
    return set(key, text, config);
}

TEST_CASE("options: keys are unique, tables stand together, help fits its line") {
    std::set<std::string_view> keys;
    std::set<std::string> tables;
    std::string table;
    for (const Option& option : options()) {
        INFO(std::string(option.key));
        CHECK(keys.insert(option.key).second);
        const std::string current(option.key.substr(0, option.key.find('.')));
        if (current != table) CHECK(tables.insert(current).second);
        table = current;
        CHECK_FALSE(option.help.empty());
        std::size_t start = 0;
        while (start < option.help.size()) {
            const std::size_t end = std::min(option.help.find('\n', start), option.help.size());
            CHECK(end - start <= 98);
            start = end + 1;
        }
    }
}

TEST_CASE("options: every default is a value that the option itself takes") {
    for (const Option& option : options()) {
        INFO(std::string(option.key));
        const Config defaults;
        std::string text = printed(option, defaults);
        std::erase(text, '"');
        if (text == "[]") text.clear();
        Config config;
        CHECK_FALSE(assign(option, raw_from_text(option, text), config));
        CHECK(printed(option, config) == printed(option, defaults));
    }
}

TEST_CASE("options: an integer takes its range and nothing beyond") {
    Config config;
    CHECK(set("upstream.connections", "64", config).empty());
    CHECK(config.upstream.connections == 64);
    for (const char* text :
         {"0", "65", "-1", "1.0", "", " 1", "+1", "0x1", "99999999999999999999"}) {
        INFO(text);
        CHECK_FALSE(set("upstream.connections", text, config).empty());
    }
    CHECK(config.upstream.connections == 64);
}

TEST_CASE("options: bytes take a number or a unit") {
    Config config;
    CHECK(set("limits.bulk_max", "64KiB", config).empty());
    CHECK(config.limits.bulk_max == 65536);
    CHECK(set("limits.bulk_max", "1000", config).empty());
    CHECK(config.limits.bulk_max == 1000);
    for (const char* text : {"0", "-1", "1MB", "1 MiB", "MiB", "1.5MiB", "2TiB", "1mib", "1KiBKiB",
                             "18446744073709551615TiB", "99999999999999999999"}) {
        INFO(text);
        CHECK_FALSE(set("limits.bulk_max", text, config).empty());
    }
    CHECK(set("upstream.queue_bytes_max", "0").empty());
}

TEST_CASE("options: bytes are printed with the largest unit that divides them") {
    CHECK(printed_bytes(0) == "0B");
    CHECK(printed_bytes(1000) == "1000B");
    CHECK(printed_bytes(65536) == "64KiB");
    CHECK(printed_bytes(1536 * 1024) == "1536KiB");
    CHECK(printed_bytes(std::uint64_t{4} << 30) == "4GiB");
    for (const std::uint64_t bytes : {0ULL, 1ULL, 1024ULL, 1025ULL, 1ULL << 50, ~0ULL}) {
        CHECK(parse_bytes(printed_bytes(bytes)) == bytes);
    }
}

TEST_CASE("options: a file mode is a string of octal digits") {
    Config config;
    CHECK(set("server.listen_mode", "0600", config).empty());
    CHECK(config.server.listen_mode == 0600);
    CHECK(set("server.listen_mode", "777", config).empty());
    CHECK(config.server.listen_mode == 0777);
    for (const char* text : {"", "6", "66", "0680", "1777", "00660", "-660", "0o60", "rw-"}) {
        INFO(text);
        CHECK_FALSE(set("server.listen_mode", text, config).empty());
    }
    CHECK(assign(*find_option("server.listen_mode"), RawValue(std::int64_t{660}), config));
}

TEST_CASE("options: a boolean is true or false") {
    static bool fact = false;
    Option option;
    option.key = "test.fact";
    option.type = OptionType::Boolean;
    option.field = [](Config&) -> bool& { return fact; };
    Config config;
    CHECK_FALSE(assign(option, raw_from_text(option, "true"), config));
    CHECK(fact);
    CHECK(printed(option, config) == "true");
    CHECK_FALSE(assign(option, raw_from_text(option, "false"), config));
    CHECK_FALSE(fact);
    for (const char* text : {"", "1", "yes", "True"}) {
        CHECK(assign(option, raw_from_text(option, text), config) == "allowed is true or false");
    }
}

TEST_CASE("options: a choice is one of its names, whole") {
    for (const char* text : {"debug", "info", "warning", "error"})
        CHECK(set("log.level", text) == "");
    for (const char* text : {"", "warn", "INFO", "info|warning", "|", "info "}) {
        INFO(text);
        CHECK_FALSE(set("log.level", text).empty());
    }
}

TEST_CASE("options: a text holds no control character and is UTF-8") {
    CHECK(set("managed.server", "/usr/bin/käse").empty());
    CHECK(set("managed.server", "a\nb") == "it holds a control character");
    CHECK(set("managed.server", std::string("a\0b", 3)) == "it holds a control character");
    CHECK(set("managed.server", "a\xff") == "it is not UTF-8");
    CHECK(set("managed.server", "") == "it must not be empty");
    CHECK(set("managed.directory", "relative") == "allowed is an absolute path");
    CHECK(set("upstream.client_name", "").empty());
    CHECK(set("upstream.client_name", "near key") != "");
    CHECK(set("server.listen", "/a,/b\x01") == "it holds a control character");
}

TEST_CASE("options: a refused value is shortened, and a secret one not shown") {
    const Option& server = *find_option("managed.server");
    CHECK(printed(server, RawValue(std::string(1000, 'x'))).size() == 103);
    CHECK(printed(server, RawValue("a\n\"\\" + std::string())) == "\"a\\u000A\\\"\\\\\"");
    CHECK(printed(*find_option("upstream.url"), RawValue(std::string("pw"))) == "\"***\"");
}

TEST_CASE("options: the nearest key is found by edit distance") {
    CHECK(nearest_key("upstream.quue_timeout_ms", options()) == "upstream.queue_timeout_ms");
    CHECK(nearest_key("limits.client_max", options()) == "limits.clients_max");
    CHECK(nearest_key("level", options()) == "log.level");
    CHECK(nearest_key("server.url", options()) == "upstream.url");
    CHECK(nearest_key("adress", listener_options()) == "address");
    CHECK_FALSE(nearest_key("", options()).empty());
    CHECK_FALSE(nearest_key(std::string(1 << 20, 'x'), options()).empty());
}

TEST_CASE("options: UTF-8 is judged as RFC 3629 has it") {
    for (const char* text : {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                             "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xef\xbb\xbf"}) {
        CHECK(utf8_prefix(text) == std::string_view(text).size());
    }
    for (const char* text :
         {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80",
          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
        CHECK(utf8_prefix("ab" + std::string(text) + "c") == 2);
    }
}

}  // namespace
}  // namespace nearkey::config_option_test
