// What reaches toml11, what is refused before it, and the settings that come out.
#include "nearkey/daemon/config_file.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::config_file_test {
namespace {

std::string repeated(const std::string& text, std::size_t count) {
    std::string result;
    while (count-- > 0)
        result += text;
    return result;
}

std::string refused(const std::string& text) {
    try {
        parse_config_text(text, "F");
    } catch (const ConfigError& error) {
        return error.what();
    }
    return "(no error)";
}

std::string keys_of(const std::string& text) {
    std::string keys;
    for (const Setting& setting : parse_config_text(text, "F")) {
        keys += setting.origin + " " + setting.key + "; ";
    }
    return keys;
}

TEST_CASE("config file: settings come in the order of their lines, with their place") {
    CHECK(keys_of("[b]\nz = 1\na = 2\n\n[a]\nc.d = 3\n") == "F:2 b.z; F:3 b.a; F:6 a.c.d; ");
    CHECK(keys_of("a = {b = 1}\r\n[e]\r\n") == "F:1 a.b; F:2 e; ");
    CHECK(keys_of("\"a.b\" = 1\n\"\" = 2\n") == "F:1 \"a.b\"; F:2 \"\"; ");
    CHECK(keys_of("").empty());
    CHECK(keys_of("# only a comment").empty());
    CHECK(keys_of("\xef\xbb\xbf"
                  "a = 1") == "F:1 a; ");
}

TEST_CASE("config file: values keep their type") {
    const auto settings = parse_config_text(
        "a = 1_000\nb = true\nc = 'x'\nd = [\"x\", 'y']\ne = []\nf = 1.5\ng = 2024-01-02\nh = "
        "[1]\n",
        "F");
    REQUIRE(settings.size() == 8);
    CHECK(std::get<std::int64_t>(settings[0].value) == 1000);
    CHECK(std::get<bool>(settings[1].value));
    CHECK(std::get<std::string>(settings[2].value) == "x");
    CHECK(std::get<std::vector<std::string>>(settings[3].value).size() == 2);
    CHECK(std::get<std::vector<std::string>>(settings[4].value).empty());
    CHECK(std::get<double>(settings[5].value) == 1.5);
    CHECK(std::get<Unfit>(settings[6].value).what == "a date or time");
    CHECK(std::holds_alternative<Unfit>(settings[7].value));
}

TEST_CASE("config file: what is not TOML is refused with its line, in one line") {
    CHECK(refused("a = 1\n\nb = \n").starts_with("F:3: not TOML: "));
    CHECK(refused("a = 1\na = 2\n").starts_with("F:2: not TOML: "));
    CHECK(refused("a = 1\n?\n").starts_with("F:2: not TOML: "));
    CHECK(refused("[t]\n[t]\n").starts_with("F:2: not TOML: "));
    CHECK(refused("a = \"x\n").starts_with("F:1: not TOML: "));
    CHECK(refused("a = \"\\uD800\"\n").find("not TOML: ") != std::string::npos);
    for (const char* text : {"a", "a =", "=", "[", "[a", "a = [1", "a = {", "a = '''x", "a = 0x"}) {
        INFO(text);
        CHECK(refused(text).starts_with("F"));
        CHECK(refused(text).find('\n') == std::string::npos);
    }
}

TEST_CASE("config file: an integer too large for toml11 fits no option") {
    // toml11 3.7.1 takes it for the largest one, 4.x refuses it.
    const std::string message = refused("a = 99999999999999999999\n");
    if (message != "(no error)") {
        CHECK(message.starts_with("F:1: not TOML: "));
        return;
    }
    const auto settings = parse_config_text("a = 99999999999999999999\n", "F");
    CHECK(std::get<std::int64_t>(settings.at(0).value) == 9223372036854775807);
}

TEST_CASE("config file: NUL and what is not UTF-8 are refused with their line") {
    CHECK(refused(std::string("a = 1\nb = \"\0\"\n", 13)) ==
          "F:2: holds a NUL byte; is it the right file?");
    CHECK(refused("\n\na = \"\xff\"\n") == "F:3: is not UTF-8; save the file as UTF-8");
    CHECK(refused("# \xc3") == "F:1: is not UTF-8; save the file as UTF-8");
}

TEST_CASE("config file: deep nesting never reaches toml11") {
    const std::string deep = "F:1: nested more than 64 levels deep";
    CHECK(refused("a = " + repeated("[", 65)) == deep);
    CHECK(refused("a = " + repeated("{a = ", 65)) == deep);
    CHECK(refused(repeated("a.", 65) + "a = 1") == deep);
    CHECK(refused("[" + repeated("a.", 200000) + "a]") == deep);
    CHECK(refused("a = " + repeated("[", 200000)) == deep);
    CHECK(refused("x = \"\"\"a\"\"\"\", " + repeated("[", 100)) == deep);
    CHECK(refused("a = " + repeated("[", 64) + repeated("]", 64)) == "(no error)");
    CHECK(refused(repeated("a.", 64) + "a = 1") == "(no error)");
}

TEST_CASE("config file: brackets and dots in strings and comments do not count") {
    const std::string many = repeated("[.", 500);
    CHECK(refused("a = \"" + many + "\"\n") == "(no error)");
    CHECK(refused("a = \"\\\"" + many + "\"\n") == "(no error)");
    CHECK(refused("a = '" + many + "\\'\n") == "(no error)");
    CHECK(refused("a = \"\"\"\n\"" + many + "\n\\\"\"\"\"\n") == "(no error)");
    CHECK(refused("a = '''\n" + many + "\n''''\n") == "(no error)");
    CHECK(refused("# " + many + "\n") == "(no error)");
    CHECK(refused(repeated("a = [ # [\n]\n", 1)) == "(no error)");
}

TEST_CASE("config file: many values never reach toml11") {
    CHECK(refused("a = [" + repeated("1,", 5000) + "]")
              .ends_with("more than 4096 values and tables"));
    CHECK(refused(repeated("a = 1\n", 5000)) == "F:4097: more than 4096 values and tables");
    CHECK(refused(repeated("[a]\n", 5000)) == "F:4097: more than 4096 values and tables");
}

}  // namespace
}  // namespace nearkey::config_file_test
