#include "nearkey/session/config_get.h"

#include "nearkey/resp/reply_writer.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey::config_get_test {
namespace {

const std::vector<std::string> kParameters = {"hz",          "masterauth",   "maxmemory",
                                              "requirepass", "tls-key-file", "tls-key-file-pass",
                                              "x.secret"};

std::string encoded(const std::vector<std::string>& words) {
    std::string bytes;
    append_array_header(bytes, 2 + words.size());
    append_bulk(bytes, "CONFIG");
    append_bulk(bytes, "GET");
    for (const std::string& word : words)
        append_bulk(bytes, word);
    return bytes;
}

// What is sent for CONFIG GET of these; "refused" where nobody knows what it shows.
std::string sent_for(const std::vector<std::string>& words,
                     const std::vector<std::string>& parameters) {
    const std::string bytes = encoded(words);
    CommandParser parser(1024);
    REQUIRE(parser.next(bytes) == ParseResult::Command);
    std::string instead;
    switch (leave_out_secrets(parser.command(), parameters, instead)) {
        case ConfigGetSecrets::None:
            return bytes;
        case ConfigGetSecrets::LeftOut:
            return instead;
        case ConfigGetSecrets::Unknown:
            break;
    }
    return "refused";
}

TEST_CASE("config get: what shows no password is sent as it is") {
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"hz"}, {"max*", "HZ"}, {"tls-key-file"}, {""}, {"[q-s]z"}}) {
        CHECK(sent_for(words, kParameters) == encoded(words));
        CHECK(sent_for(words, {}) == encoded(words));
    }
}

TEST_CASE("config get: a password's name is the name of nothing") {
    CHECK(sent_for({"requirepass"}, kParameters) == encoded({""}));
    CHECK(sent_for({"RequirePass", "X.SECRET"}, {}) == encoded({""}));
    CHECK(sent_for({"hz", "masterauth", "maxmemory"}, {}) == encoded({"hz", "maxmemory"}));
}

TEST_CASE("config get: a pattern that shows a password shows all else that it matches") {
    CHECK(sent_for({"*"}, kParameters) == encoded({"hz", "maxmemory", "tls-key-file"}));
    CHECK(sent_for({"M*"}, kParameters) == encoded({"maxmemory"}));
    CHECK(sent_for({"r*", "no-such", "hz"}, kParameters) == encoded({"hz", "no-such"}));
    CHECK(sent_for({"tls-key-file*"}, kParameters) == encoded({"tls-key-file"}));
    CHECK(sent_for({"x.s?cret"}, kParameters) == encoded({""}));
    CHECK(sent_for({"re[p-r]uirepass"}, kParameters) == encoded({""}));
    CHECK(sent_for({"re\\quirepass"}, kParameters) == encoded({""}));
}

TEST_CASE("config get: a pattern that may show a password is refused while no names are known") {
    CHECK(sent_for({"*"}, {}) == "refused");
    CHECK(sent_for({"hz", "*pass"}, {}) == "refused");
    CHECK(sent_for({"max*"}, {}) == encoded({"max*"}));
}

}  // namespace
}  // namespace nearkey::config_get_test
