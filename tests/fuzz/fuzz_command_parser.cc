// Client bytes -> CommandParser. However the bytes are cut, the commands, their ends and the error
// are the same; and a command encoded anew is the same command, in the canonical form.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/command_parser.h"

using nearkey::CommandParser;
using nearkey::CommandView;
using nearkey::ParseResult;

namespace {

// Small, so that the limit is met.
constexpr int64_t kBulkMax = 300;
constexpr int64_t kNoMax = INT64_MAX;

using Words = std::vector<std::string>;

struct Reading {
    std::vector<Words> commands;
    std::vector<size_t> ends;  // of commands and of empty requests
    std::string error;

    bool operator==(const Reading&) const = default;
};

Words words_of(const CommandView& command) {
    Words words;
    for (size_t i = 0; i < command.size(); ++i)
        words.emplace_back(command[i]);
    return words;
}

void check_encoding(const CommandView& command) {
    std::string encoded;
    encode_command(command, encoded);
    NEARKEY_CHECK(command.is_canonical() == (command.raw() == encoded));
    // What is encoded for Valkey may be longer than a client's argument: inline words have no
    // limit.
    CommandParser parser(kNoMax);
    const nearkey::fuzz::ExactCopy input(encoded);
    NEARKEY_CHECK(parser.next(input.view()) == ParseResult::Command);
    NEARKEY_CHECK(parser.consumed() == encoded.size());
    NEARKEY_CHECK(parser.command().is_canonical());
    NEARKEY_CHECK(words_of(parser.command()) == words_of(command));
}

void check_command(CommandParser& parser, std::string_view input) {
    const CommandView command = parser.command();
    NEARKEY_CHECK(command.size() > 0);
    NEARKEY_CHECK(command.raw() == input.substr(0, parser.consumed()));
    check_encoding(command);
    // A command that has to wait is read again.
    const Words words = words_of(command);
    const size_t consumed = parser.consumed();
    parser.restart();
    NEARKEY_CHECK(parser.next(input) == ParseResult::Command);
    NEARKEY_CHECK(words_of(parser.command()) == words);
    NEARKEY_CHECK(parser.consumed() == consumed);
}

// As a session does it: each piece arrives behind what was left of the ones before, and the memory
// has moved.
Reading read_in_pieces(std::string_view bytes, const nearkey::fuzz::Cuts& cuts) {
    Reading reading;
    CommandParser parser(kBulkMax);
    size_t start = 0;
    for (const size_t end : cuts) {
        const nearkey::fuzz::ExactCopy piece(bytes.substr(start, end - start));
        std::string_view input = piece.view();
        while (true) {
            const ParseResult result = parser.next(input);
            NEARKEY_CHECK(parser.memory_bytes() <= 4096 + 64 * bytes.size());
            if (result == ParseResult::Incomplete) break;
            if (result == ParseResult::Invalid) {
                reading.error = parser.error();
                NEARKEY_CHECK(reading.error.starts_with("ERR Protocol error: "));
                return reading;
            }
            NEARKEY_CHECK(parser.consumed() > 0 && parser.consumed() <= input.size());
            if (result == ParseResult::Command) {
                reading.commands.push_back(words_of(parser.command()));
            }
            start += parser.consumed();
            reading.ends.push_back(start);
            input.remove_prefix(parser.consumed());
        }
    }
    return reading;
}

// Each command of the input, by itself.
void check_commands(std::string_view bytes) {
    CommandParser parser(kBulkMax);
    const nearkey::fuzz::ExactCopy copy(bytes);
    std::string_view input = copy.view();
    while (true) {
        const ParseResult result = parser.next(input);
        if (result == ParseResult::Incomplete || result == ParseResult::Invalid) return;
        if (result == ParseResult::Command) check_command(parser, input);
        input.remove_prefix(parser.consumed());
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes = nearkey::fuzz::as_text(data, size);
    check_commands(bytes);
    const Reading whole = read_in_pieces(bytes, {bytes.size()});
    for (const nearkey::fuzz::Cuts& cuts : nearkey::fuzz::ways_to_cut(bytes)) {
        NEARKEY_CHECK(read_in_pieces(bytes, cuts) == whole);
    }
    return 0;
}
