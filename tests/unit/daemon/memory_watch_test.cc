// How near the end of memory is.
#include "nearkey/daemon/memory_watch.h"

#include <doctest/doctest.h>

namespace nearkey::memory_watch_test {
namespace {

TEST_CASE("memory watch: of a cgroup only what it can't take back counts") {
    const auto use = parse_cgroup("1000\n", "anon 600\nfile 300\n");
    REQUIRE(use);
    CHECK(use->used == 600);
    CHECK(use->limit == 1000);
    CHECK(parse_cgroup("1000\n", "file 1\nanon 7\n")->used == 7);
    CHECK_FALSE(parse_cgroup("max\n", "anon 600\n"));
    CHECK_FALSE(parse_cgroup("", "anon 600\n"));
    CHECK_FALSE(parse_cgroup("0\n", "anon 600\n"));
    CHECK_FALSE(parse_cgroup("1000\n", "file 300\n"));
    CHECK_FALSE(parse_cgroup("1000\n", "anon x\n"));
}

TEST_CASE("memory watch: it is short above seven eighths, and enough below three quarters") {
    CHECK_FALSE((MemoryUse{700, 800}.is_short()));
    CHECK((MemoryUse{701, 800}.is_short()));
    CHECK_FALSE((MemoryUse{600, 800}.is_enough()));
    CHECK((MemoryUse{599, 800}.is_enough()));
}

}  // namespace
}  // namespace nearkey::memory_watch_test
