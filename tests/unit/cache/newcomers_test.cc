// What is remembered of those that left the near cache as newcomers.
#include "nearkey/cache/newcomers.h"

#include <doctest/doctest.h>

namespace nearkey::newcomers_test {

TEST_CASE("newcomers: who is remembered is recalled once") {
    Newcomers newcomers;
    CHECK_FALSE(newcomers.recall(7));
    newcomers.remember(7, 1000);
    CHECK(newcomers.recall(7));
    CHECK_FALSE(newcomers.recall(7));
}

TEST_CASE("newcomers: room for far more entries than there are is given back") {
    Newcomers newcomers;
    newcomers.remember(7, 10'000);
    const size_t before = newcomers.bytes();
    CHECK(before >= 20'000);
    newcomers.shrink(5'000);
    CHECK(newcomers.bytes() == before);
    CHECK(newcomers.recall(7));
    newcomers.remember(8, 10'000);
    newcomers.shrink(100);
    CHECK(newcomers.bytes() == 0);
    CHECK_FALSE(newcomers.recall(8));
    newcomers.remember(9, 100);
    CHECK(newcomers.recall(9));
}

}  // namespace nearkey::newcomers_test
