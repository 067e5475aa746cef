// Reads a small file as a whole, such as one of /proc.
// A file that can't be read is empty.
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
