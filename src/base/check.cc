#include "nearkey/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace nearkey {

void check_failed(const char* condition, const char* file, int line) noexcept {
    std::fprintf(stderr, "nearkey: NEARKEY_CHECK failed: %s at %s:%d\n", condition, file, line);
    std::abort();
}

}  // namespace nearkey
