#include "nearkey/base/os_error.h"

#include <doctest/doctest.h>

#include <cerrno>

namespace nearkey::os_error_test {

TEST_CASE("os error: the system's words, then what to do about it") {
    CHECK(os_error(EACCES) ==
          "Permission denied; give nearkey's user the right to it, or name another place");
    CHECK(os_error(EMFILE) == "Too many open files; raise LimitNOFILE= of the unit (ulimit -n)");
    CHECK(os_error(ENOTTY).find(';') == std::string::npos);
}

}  // namespace nearkey::os_error_test
