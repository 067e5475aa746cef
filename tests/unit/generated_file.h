// Files of the repository that are made from a table of the program: equal to what it says now.
// NEARKEY_WRITE_DOCS=1 in the environment of the unit tests writes them anew.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace nearkey {

inline void check_generated(const char* path, const std::string& expected) {
    if (std::getenv("NEARKEY_WRITE_DOCS") != nullptr) std::ofstream(path) << expected;
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    REQUIRE(file.good());
    CHECK(text.str() == expected);
}

}  // namespace nearkey
