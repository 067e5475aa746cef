// Which users a user namespace hides.
#include "nearkey/daemon/accounts.h"

#include <doctest/doctest.h>

namespace nearkey::accounts_test {
namespace {

TEST_CASE("accounts: a user namespace maps ranges of ids") {
    // As under PrivateUsers=yes: root and our own user.
    const std::string few = "         0          0          1\n       998        998          1\n";
    CHECK(is_mapped(few, 0));
    CHECK(is_mapped(few, 998));
    CHECK_FALSE(is_mapped(few, 1));
    CHECK_FALSE(is_mapped(few, 1000));
    const std::string all = "         0          0 4294967295\n";
    CHECK(is_mapped(all, 4294967294U));
    CHECK_FALSE(is_mapped("", 0));
    CHECK_FALSE(is_mapped("x y z\n", 0));
}

}  // namespace
}  // namespace nearkey::accounts_test
