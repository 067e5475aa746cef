// Words of commands and replies, for the files of ModelValkey: which command it is, in either case
// of letters, and the reply that most have.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace nearkey::simulation {

inline constexpr const char* kOk = "+OK\r\n";

inline std::string upper(std::string text) {
    for (char& letter : text)
        letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    return text;
}

inline bool is(std::string_view word, std::string_view lower) {
    return std::equal(word.begin(), word.end(), lower.begin(), lower.end(), [](char a, char b) {
        return std::tolower(static_cast<unsigned char>(a)) == b;
    });
}

}  // namespace nearkey::simulation
