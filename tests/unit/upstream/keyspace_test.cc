#include "nearkey/upstream/server_stats.h"

#include <doctest/doctest.h>

namespace nearkey::keyspace_test {
namespace {

TEST_CASE("C7: keyspace: whether any field expires by itself, as Valkey 9 and Redis 7.4 say it") {
    CHECK_FALSE(has_expiring_fields("# Keyspace\r\n"));
    CHECK_FALSE(has_expiring_fields(
        "# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,keys_with_volatile_items=0\r\n"));
    CHECK(
        has_expiring_fields("# Commandstats\r\ncmdstat_get:calls=1\r\n\r\n# Keyspace\r\n"
                            "db0:keys=1,expires=0,avg_ttl=0,keys_with_volatile_items=0\r\n"
                            "db5:keys=9,expires=0,avg_ttl=0,keys_with_volatile_items=10\r\n"));
    CHECK_FALSE(
        has_expiring_fields("# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n"));
    CHECK(has_expiring_fields("# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0,subexpiry=2\r\n"));
}

TEST_CASE("C7: keyspace: what does not say may have some") {
    CHECK(has_expiring_fields(""));
    CHECK(has_expiring_fields("# Commandstats\r\n"));
    CHECK(has_expiring_fields("# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n"));
}

}  // namespace
}  // namespace nearkey::keyspace_test
