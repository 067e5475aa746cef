// The options of the near cache's features: defaults, what is taken, what is refused.
#include "nearkey/daemon/config.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace nearkey::config_near_cache_test {
namespace {

Config loaded(std::vector<std::string> settings) {
    ConfigSources sources;
    sources.set = std::move(settings);
    return load_config(sources);
}

std::string error_of(std::vector<std::string> settings) {
    try {
        loaded(std::move(settings));
    } catch (const ConfigError& error) {
        return error.what();
    }
    return "(no error)";
}

}  // namespace

TEST_CASE("config: near_cache.touch and its limit") {
    CHECK(loaded({}).near_cache.touch);
    CHECK_FALSE(loaded({"near_cache.touch=false"}).near_cache.touch);
    CHECK(error_of({"near_cache.touch=1"}).ends_with("allowed is true or false"));
    CHECK(loaded({"near_cache.touch_keys_max=1"}).near_cache.touch_keys_max == 1);
    CHECK(error_of({"near_cache.touch_keys_max=0"}).ends_with("an integer from 1 to 10000"));
}

TEST_CASE("config: near_cache.stale_if_unavailable_ms") {
    CHECK(loaded({}).near_cache.stale_if_unavailable_ms == 0);
    const Config config = loaded({"near_cache.stale_if_unavailable_ms=86400000"});
    CHECK(config.near_cache.stale_if_unavailable_ms == 86'400'000);
    CHECK(error_of({"near_cache.stale_if_unavailable_ms=86400001"})
              .ends_with("an integer from 0 to 86400000"));
}

TEST_CASE("config: near_cache.tracking and its prefixes") {
    CHECK(loaded({}).near_cache.tracking == "default");
    CHECK(loaded({}).near_cache.prefixes.empty());
    const Config config = loaded({"near_cache.tracking=broadcast", "near_cache.prefixes=a:,b:"});
    CHECK(config.near_cache.prefixes == std::vector<std::string>{"a:", "b:"});
    CHECK(error_of({"near_cache.tracking=broadcast"}) == "(no error)");
    CHECK(error_of({"near_cache.tracking=optin"}).ends_with("one of default, broadcast"));
    CHECK(error_of({"near_cache.prefixes=a:"})
              .ends_with("goes only together with near_cache.tracking = \"broadcast\""));
    CHECK(error_of({"near_cache.tracking=broadcast", "near_cache.prefixes=a:,b:,a:b"})
              .ends_with("they must not overlap, and \"a:b\" begins with \"a:\""));
    CHECK(error_of({"near_cache.tracking=broadcast", "near_cache.prefixes=a,a"})
              .ends_with("\"a\" begins with \"a\""));
    CHECK(error_of({"near_cache.tracking=broadcast", "near_cache.prefixes=a,,b"})
              .ends_with("it must not be empty"));
}

TEST_CASE("config: near_cache.audit_ratio") {
    CHECK(loaded({}).near_cache.audit_ratio == 0);
    CHECK(loaded({"near_cache.audit_ratio=0.25"}).near_cache.audit_ratio == 0.25);
    CHECK(loaded({"near_cache.audit_ratio=1"}).near_cache.audit_ratio == 1);
    for (const char* wrong : {"1.5", "-0.1", "nan", "inf", "half", "", "0.5x"}) {
        CAPTURE(wrong);
        CHECK(error_of({std::string("near_cache.audit_ratio=") + wrong})
                  .ends_with("allowed is a number from 0 to 1"));
    }
}

}  // namespace nearkey::config_near_cache_test
