#include "nearkey/resp/inline_command.h"

#include "nearkey/base/ignoring_case.h"

namespace nearkey {

namespace {

bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = to_lower(c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

char unescaped(char c) {
    switch (c) {
        case 'n':
            return '\n';
        case 'r':
            return '\r';
        case 't':
            return '\t';
        case 'b':
            return '\b';
        case 'a':
            return '\a';
        default:
            return c;
    }
}

// Reads what follows an opening double quote; false if it is not closed before a blank or the end.
bool read_double_quoted(std::string_view& rest, std::string& word) {
    while (!rest.empty()) {
        if (rest.size() >= 4 && rest[0] == '\\' && rest[1] == 'x' && hex_digit(rest[2]) >= 0 &&
            hex_digit(rest[3]) >= 0) {
            word += static_cast<char>(hex_digit(rest[2]) * 16 + hex_digit(rest[3]));
            rest.remove_prefix(4);
        } else if (rest.size() >= 2 && rest[0] == '\\') {
            word += unescaped(rest[1]);
            rest.remove_prefix(2);
        } else if (rest[0] == '"') {
            rest.remove_prefix(1);
            return rest.empty() || is_space(rest[0]);
        } else {
            word += rest[0];
            rest.remove_prefix(1);
        }
    }
    return false;
}

bool read_single_quoted(std::string_view& rest, std::string& word) {
    while (!rest.empty()) {
        if (rest.starts_with("\\'")) {
            word += '\'';
            rest.remove_prefix(2);
        } else if (rest[0] == '\'') {
            rest.remove_prefix(1);
            return rest.empty() || is_space(rest[0]);
        } else {
            word += rest[0];
            rest.remove_prefix(1);
        }
    }
    return false;
}

// A word ends at these; vertical tab and form feed only separate words, they don't end one.
bool ends_word(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool read_word(std::string_view& rest, std::string& word) {
    while (!rest.empty() && !ends_word(rest[0])) {
        const char c = rest[0];
        rest.remove_prefix(1);
        if (c == '"') return read_double_quoted(rest, word);
        if (c == '\'') return read_single_quoted(rest, word);
        word += c;
    }
    return true;
}

}  // namespace

std::optional<std::vector<std::string>> split_inline(std::string_view line) {
    std::vector<std::string> words;
    while (true) {
        while (!line.empty() && is_space(line[0]))
            line.remove_prefix(1);
        if (line.empty()) return words;
        if (!read_word(line, words.emplace_back())) return std::nullopt;
    }
}

}  // namespace nearkey
