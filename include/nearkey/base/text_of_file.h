// A small file as a whole, as those of /proc are.
// What can't be read is empty.
#pragma once

#include <fstream>
#include <iterator>
#include <string>

namespace nearkey {

inline std::string text_of_file(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace nearkey
