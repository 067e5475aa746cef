// What a URL means, and what is refused; no message may show a password.
#include "nearkey/upstream/url.h"

#include <doctest/doctest.h>

#include <string>
#include <variant>
#include <vector>

namespace nearkey::url_test {
namespace {

UpstreamUrl parsed(const std::string& text) {
    INFO(text);
    const auto result = parse_url(text);
    const auto* const url = std::get_if<UpstreamUrl>(&result);
    REQUIRE(url != nullptr);
    return *url;
}

std::string refused(const std::string& text) {
    INFO(text);
    const auto result = parse_url(text);
    const auto* const error = std::get_if<UrlError>(&result);
    REQUIRE(error != nullptr);
    CHECK(error->message.find('\n') == std::string::npos);
    return error->message;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("url: a host alone has port 6379, database 0, no TLS and no user") {
    UpstreamUrl expected;
    expected.kind = UpstreamUrl::Kind::Tcp;
    expected.host = "cache.example";
    CHECK(parsed("valkey://cache.example") == expected);
    CHECK(parsed("redis://cache.example") == expected);
    CHECK(parsed("redis://cache.example/") == expected);
    expected.tls = true;
    CHECK(parsed("valkeys://cache.example:6379/0") == expected);
    CHECK(parsed("rediss://cache.example") == expected);
}

TEST_CASE("url: user, password, port and database are read") {
    const UpstreamUrl url = parsed("valkeys://app:secret@10.0.0.7:7000/12");
    CHECK(url.tls);
    CHECK(url.user == "app");
    CHECK(url.password == "secret");
    CHECK(url.host == "10.0.0.7");
    CHECK(url.port == 7000);
    CHECK(url.database == 12);
}

TEST_CASE("url: a password needs no user, and a user no password") {
    CHECK(parsed("redis://:pw@h").user.empty());
    CHECK(parsed("redis://:pw@h").password == "pw");
    CHECK(parsed("redis://app@h").user == "app");
    CHECK(parsed("redis://app@h").password.empty());
    CHECK(parsed("redis://:a:b@h").password == "a:b");
    CHECK(parsed("redis://:a@b@h").password == "a@b");
}

TEST_CASE("url: user and password are percent-decoded") {
    const UpstreamUrl url = parsed("redis://a%40b:p%2Fw%3a%25%00+@h");
    CHECK(url.user == "a@b");
    CHECK(url.password == std::string("p/w:%\0+", 7));
}

TEST_CASE("url: IPv6 stands in brackets, with or without port and zone") {
    CHECK(parsed("redis://[::1]").host == "::1");
    CHECK(parsed("redis://[::1]").port == 6379);
    CHECK(parsed("redis://:pw@[2001:db8::1]:7/3").host == "2001:db8::1");
    CHECK(parsed("redis://:pw@[2001:db8::1]:7/3").port == 7);
    CHECK(parsed("redis://:pw@[2001:db8::1]:7/3").database == 3);
    CHECK(parsed("redis://[fe80::1%25eth0]").host == "fe80::1%eth0");
}

TEST_CASE("url: a Unix socket has a path, and may have a user and a database") {
    const UpstreamUrl plain = parsed("unix:///run/valkey/valkey.sock");
    CHECK(plain.kind == UpstreamUrl::Kind::Unix);
    CHECK(plain.path == "/run/valkey/valkey.sock");
    CHECK(plain.database == 0);
    const UpstreamUrl full = parsed("unix://app:p%40w@/tmp/a%20b.sock?db=4");
    CHECK(full.path == "/tmp/a b.sock");
    CHECK(full.user == "app");
    CHECK(full.password == "p@w");
    CHECK(full.database == 4);
    CHECK(parsed("unix://:pw@/s").password == "pw");
}

TEST_CASE("url: managed: takes nothing more") {
    CHECK(parsed("managed:") == UpstreamUrl{});
    CHECK(contains(refused("managed:x"), "managed:"));
    CHECK(contains(refused("managed://"), "managed:"));
}

TEST_CASE("url: an unknown scheme is refused with the known ones") {
    for (const char* text : {"http://h", "h:6379", "/run/x.sock", "valkey:h", "unix:/x",
                             "REDIS://h", "://h", "redis", "unix"}) {
        CHECK(contains(refused(text), "valkey://"));
    }
    CHECK(contains(refused(""), "empty"));
}

TEST_CASE("url: a wrong host is refused") {
    for (const char* text :
         {"redis://", "redis:///0", "redis://:6379", "redis://:pw@", "redis://a,b", "redis://[::1",
          "redis://[nonsense]", "redis://[]", "redis://[::1%25]", "redis://[127.0.0.1]",
          "redis://a%zz", "redis://h%00"}) {
        refused(text);
    }
    refused("redis://" + std::string(256, 'a'));
}

TEST_CASE("url: a wrong port is refused") {
    for (const char* text :
         {"redis://h:", "redis://h:0", "redis://h:65536", "redis://h:+1", "redis://h:1x",
          "redis://h:99999999999999999999", "redis://[::1]6379", "redis://::1", "redis://h:1:2"}) {
        refused(text);
    }
    CHECK(contains(refused("redis://h:0"), "65535"));
    CHECK(parsed("redis://h:65535").port == 65535);
}

TEST_CASE("url: a wrong database is refused") {
    for (const char* text : {"redis://h/x", "redis://h/-1", "redis://h/1/", "redis://h/2147483648",
                             "unix:///s?db=", "unix:///s?db=x", "unix:///s?db=1&db=2"}) {
        CHECK(contains(refused(text), "database"));
    }
    CHECK(parsed("redis://h/2147483647").database == 2147483647);
}

TEST_CASE("url: an unknown query parameter and a fragment are refused") {
    for (const char* text : {"redis://h?db=1", "redis://h/1?timeout=3", "unix:///s?timeout=3",
                             "unix:///s?db", "unix:///s?", "unix:///s?DB=1"}) {
        CHECK(contains(refused(text), "query parameter"));
    }
    CHECK(contains(refused("redis://h/1#x"), "%23"));
}

TEST_CASE("url: a wrong path is refused") {
    for (const char* text : {"unix://run/x.sock", "unix://", "unix:///", "unix:///run/",
                             "unix://:p@", "unix:///a%00b", "unix:///a%", "unix:///a%4"}) {
        refused(text);
    }
    CHECK(contains(refused("unix://run/x.sock"), "absolute"));
    CHECK(parsed("unix:///" + std::string(106, 'a')).path.size() == 107);
    refused("unix:///" + std::string(107, 'a'));
}

TEST_CASE("url: blanks and control characters are refused") {
    for (const char* text :
         {" redis://h", "redis://h ", "redis://h\n", "redis://a b", "redis://h\x7f"}) {
        CHECK(contains(refused(text), "blank"));
    }
    CHECK(contains(refused(std::string("redis://h\0", 10)), "control"));
}

TEST_CASE("url: no message shows the password") {
    for (const char* text : {"redis://u:hunter2", "redis://:hunter2@h:x", "redis://:hunter2%@h",
                             "redis://:hunt/hunter2@h", "redis://:hunter2@h/x", "unix://:hunter2",
                             "redis://:hunter2#@h", "redis://:hunter2 @h", "unix:///s?pw=hunter2",
                             "hunter2", "redis://h/hunter2", "redis://[hunter2]"}) {
        CHECK_FALSE(contains(refused(text), "hunter2"));
    }
}

TEST_CASE("url: redacted shows everything but the password") {
    CHECK(redacted(parsed("managed:")) == "managed:");
    CHECK(redacted(parsed("redis://h")) == "valkey://h:6379");
    CHECK(redacted(parsed("rediss://a%40b:pw@h:1/2")) == "valkeys://a%40b:***@h:1/2");
    CHECK(redacted(parsed("redis://:pw@[::1]")) == "valkey://:***@[::1]:6379");
    CHECK(redacted(parsed("redis://app@[fe80::1%25eth0]")) == "valkey://app@[fe80::1%25eth0]:6379");
    CHECK(redacted(parsed("unix://:pw@/a%20b?db=3")) == "unix://:***@/a%20b?db=3");
    CHECK(redacted(parsed("unix:///run/x.sock")) == "unix:///run/x.sock");
}

TEST_CASE("url: what redacted prints is read back as the same, but for the password") {
    for (const char* text :
         {"redis://h/3", "rediss://u:%00%ff@[fe80::1%25eth0]:1", "unix://u@/%e2%82%ac?db=1"}) {
        UpstreamUrl url = parsed(text);
        if (!url.password.empty()) url.password = "***";
        CHECK(parsed(redacted(url)) == url);
    }
}

TEST_CASE("url: Sentinels and the name that they have for the primary are read") {
    const UpstreamUrl url = parsed("sentinel://app:secret@s1:26380,10.0.0.2,[::1]:7/main.a-b_1/3");
    CHECK(url.kind == UpstreamUrl::Kind::Sentinel);
    CHECK(url.is_tcp());
    CHECK_FALSE(url.tls);
    CHECK(url.user == "app");
    CHECK(url.password == "secret");
    CHECK(url.sentinels == std::vector<Endpoint>{{"s1", 26380}, {"10.0.0.2", 26379}, {"::1", 7}});
    CHECK(url.primary_name == "main.a-b_1");
    CHECK(url.database == 3);
    CHECK(url.host.empty());
    CHECK(redacted(url) == "sentinel://app:***@s1:26380,10.0.0.2:26379,[::1]:7/main.a-b_1/3");
    UpstreamUrl again = parsed(redacted(url));
    again.password = "secret";
    CHECK(again == url);
}

TEST_CASE("url: Sentinels have the schemes that other clients know") {
    for (const char* scheme : {"sentinel", "redis+sentinel", "valkey+sentinel", "redis-sentinel"}) {
        const UpstreamUrl url = parsed(std::string(scheme) + "://s1/mymaster");
        CHECK(url == parsed("sentinel://s1:26379/mymaster/0"));
        CHECK_FALSE(url.tls);
    }
    for (const char* scheme :
         {"sentinels", "rediss+sentinel", "valkeys+sentinel", "rediss-sentinel"}) {
        CHECK(parsed(std::string(scheme) + "://s1/mymaster") == parsed("sentinels://s1/mymaster/"));
        CHECK(parsed(std::string(scheme) + "://s1/mymaster").tls);
    }
}

TEST_CASE("url: each wrong part of a URL with Sentinels is told, and no password") {
    CHECK(contains(refused("sentinel://s1"), "sentinel://HOST:26379/mymaster"));
    CHECK(contains(refused("sentinel://s1/"), "mymaster"));
    CHECK(contains(refused("sentinel://s1//3"), "mymaster"));
    CHECK(contains(refused("sentinel://s1/my%20master"), "letters, digits"));
    CHECK(contains(refused("sentinel://s1#mymaster"), "stands in the path"));
    CHECK(contains(refused("sentinel://s1,/mymaster"), "number 2: the host is missing"));
    CHECK(contains(refused("sentinel:///mymaster"), "number 1: the host is missing"));
    CHECK(contains(refused("sentinel://s1,s2:0/mymaster"), "number 2: the port"));
    CHECK(contains(refused("sentinel://s1,s2,s1:26379/mymaster"), "s1:26379 is given twice"));
    CHECK(contains(refused("sentinel://s1/mymaster/x"), "the database must be a number"));
    CHECK(contains(refused("sentinel://s1/mymaster?db=1"), "the database stands in the path"));
    CHECK(contains(refused("valkey://a,b"), "the host is not a name"));
    std::string many = "s0";
    for (int i = 1; i <= 16; ++i)
        many += ",s" + std::to_string(i);
    CHECK(contains(refused("sentinel://" + many + "/mymaster"), "no more than 16"));
    for (const char* text : {"sentinel://:hidden@s1:x/mymaster", "sentinel://:hidden@s1",
                             "sentinel://:hi,dden@s1,s1/mymaster"}) {
        CHECK_FALSE(contains(refused(text), "hidden"));
        CHECK_FALSE(contains(refused(text), "dden@"));
    }
}

}  // namespace
}  // namespace nearkey::url_test
