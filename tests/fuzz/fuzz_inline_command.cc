// Inline quoting: split_inline() against a plain transcription of the rules of Valkey's
// sdssplitargs(), and every text, quoted, is one word that says the same.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/inline_command.h"

#include <cctype>
#include <optional>

using nearkey::CommandParser;
using nearkey::ParseResult;
using nearkey::split_inline;

namespace {

using Words = std::vector<std::string>;

bool is_space(char c) {
    return std::isspace(static_cast<unsigned char>(c)) != 0;
}

bool is_hex(char c) {
    return std::isxdigit(static_cast<unsigned char>(c)) != 0;
}

char escaped(char c) {
    constexpr std::string_view kNames = "nrtba";
    constexpr std::string_view kMeanings = "\n\r\t\b\a";
    const size_t found = kNames.find(c);
    return found == std::string_view::npos ? c : kMeanings[found];
}

// One word, a character at a time as the server does it; false where the quotes are wrong.
// line[line.size()] is the NUL that ends it. REQUIRES: line[at] is no blank and no NUL.
bool model_word(const std::string& line, size_t& at, std::string& word) {
    char quote = 0;
    while (true) {
        const char c = line[at];
        const char next = c == 0 ? '\0' : line[at + 1];
        if (quote == 0) {
            if (c == 0 || c == ' ' || c == '\n' || c == '\r' || c == '\t') return true;
            if (c == '"' || c == '\'') {
                quote = c;
            } else {
                word += c;
            }
        } else if (c == 0) {
            return false;
        } else if (quote == '"' && c == '\\' && next == 'x' && is_hex(line[at + 2]) &&
                   is_hex(line[at + 3])) {
            word += static_cast<char>(std::stoi(line.substr(at + 2, 2), nullptr, 16));
            at += 3;
        } else if (quote == '"' && c == '\\' && next != 0) {
            word += escaped(next);
            ++at;
        } else if (quote == '\'' && c == '\\' && next == '\'') {
            word += '\'';
            ++at;
        } else if (c == quote) {
            ++at;
            return next == 0 || is_space(next);
        } else {
            word += c;
        }
        ++at;
    }
}

std::optional<Words> model(const std::string& line) {
    Words words;
    size_t at = 0;
    while (true) {
        while (line[at] != 0 && is_space(line[at]))
            ++at;
        if (line[at] == 0) return words;
        if (!model_word(line, at, words.emplace_back())) return std::nullopt;
    }
}

std::string quoted(std::string_view word) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string text = "\"";
    for (const char c : word) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            text += {'\\', c};
        } else if (std::isprint(byte) != 0) {
            text += c;
        } else {
            text += {'\\', 'x', kHex[byte >> 4U], kHex[byte & 15U]};
        }
    }
    return text + '"';
}

void check_quoting(const Words& words) {
    std::string line;
    for (const std::string& word : words)
        line += quoted(word) + " ";
    NEARKEY_CHECK(split_inline(line) == words);
}

// The same line as a request.
void check_request(const std::string& line, const std::optional<Words>& words) {
    if (line.starts_with('*')) return;
    CommandParser parser(1);
    const nearkey::fuzz::ExactCopy input(line + "\r\n");
    const ParseResult result = parser.next(input.view());
    if (!words) {
        NEARKEY_CHECK(result == ParseResult::Invalid);
        NEARKEY_CHECK(parser.error() == "ERR Protocol error: unbalanced quotes in request");
        return;
    }
    NEARKEY_CHECK(result == (words->empty() ? ParseResult::Empty : ParseResult::Command));
    NEARKEY_CHECK(parser.consumed() == input.view().size());
    if (words->empty()) return;
    NEARKEY_CHECK(parser.command().size() == words->size());
    for (size_t i = 0; i < words->size(); ++i)
        NEARKEY_CHECK(parser.command()[i] == (*words)[i]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string bytes(nearkey::fuzz::as_text(data, size));
    check_quoting({bytes});
    // A line holds neither a line end nor a NUL.
    const std::string line = bytes.substr(0, bytes.find_first_of(std::string_view("\n\0", 2)));
    const nearkey::fuzz::ExactCopy copy(line);
    const std::optional<Words> words = split_inline(copy.view());
    NEARKEY_CHECK(words == model(line));
    if (words) check_quoting(*words);
    check_request(line, words);
    return 0;
}
