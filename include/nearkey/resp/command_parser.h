// Client bytes -> one command at a time, by the rules of Valkey's processInputBuffer
// (networking.c, 8.0): multibulk or inline, the same limits, the same error texts.
// Nothing is copied and nothing is allocated from a declared length: a view into the input, grown
// as arguments really arrive. Owned by the session, one for each client.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// A whole command. Valid until the input moves or the parser is called again.
class CommandView {
public:
    size_t size() const { return size_; }
    std::string_view operator[](size_t index) const {
        const Range range = arguments_[index];
        return {base_ + range.offset, range.size};
    }
    // All bytes of the command in the input, to be consumed.
    std::string_view raw() const { return raw_; }
    // True if raw() is exactly the encoding that every RESP parser reads in the same way. If not,
    // it must be encoded anew before it goes to a connection that others share.
    bool is_canonical() const { return canonical_; }

private:
    friend class CommandParser;
    struct Range {
        size_t offset;
        size_t size;
    };
    std::string_view raw_;
    const char* base_ = nullptr;
    const Range* arguments_ = nullptr;
    uint32_t size_ = 0;
    bool canonical_ = true;
};

// Appends the canonical encoding of `command`.
void encode_command(const CommandView& command, std::string& out);

enum class ParseResult {
    Incomplete,  // call again with the same bytes and more behind them
    Command,     // command() is valid; consume consumed() bytes
    Empty,       // nothing to answer; consume consumed() bytes
    Invalid,     // answer with error(), then close
};

class CommandParser {
public:
    // `bulk_max`: the longest argument, in bytes (proto-max-bulk-len).
    explicit CommandParser(int64_t bulk_max) : bulk_max_(bulk_max) {}

    // `input` starts with the command being read. After Command or Empty the next call starts anew.
    [[nodiscard]] ParseResult next(std::string_view input);
    // Forgets a command that is half read or was just returned: the next call starts from its
    // beginning.
    void restart();
    // Forgets all that it has read: the next input is of another stream.
    void begin_stream() {
        is_blank_ = after_blanks_ = false;
        restart();
    }

    size_t memory_bytes() const {
        return ranges_.capacity() * sizeof(CommandView::Range) + inline_arguments_.capacity();
    }
    const CommandView& command() const { return command_; }
    size_t consumed() const { return position_; }
    // After Incomplete: the least number of bytes still missing, if the command is inside an
    // argument; else 0.
    size_t missing() const {
        if (state_ != State::Arguments || bulk_length_ < 0) return 0;
        return position_ + static_cast<size_t>(bulk_length_) + 2 - input_.size();
    }
    // "ERR Protocol error: ..." without the leading dash and the line end.
    const std::string& error() const { return error_; }
    // Bytes for which the server says error() and closes, and in which it finds no command however
    // it reads them: input that was not understood is never sent on. REQUIRES: Invalid.
    std::string counterpart() const;

private:
    enum class State : uint8_t { Start, Arguments, Done };

    // Parses a command in one go that is all there and written as nearly all are. False: it is
    // not, and is read as any other.
    bool parse_usual(std::string_view input);
    void add_range(CommandView::Range range);
    ParseResult parse_inline();
    ParseResult parse_header();
    ParseResult parse_arguments();
    ParseResult parse_bulk_length();
    ParseResult finish(const char* base);
    ParseResult invalid(std::string_view what);
    // The length at position_ behind its type byte, if it is written as nearly all are: a few
    // digits, "\r\n". -1: it is read_line()'s.
    int64_t read_short_length(char type);
    // The line at position_, which ends at '\r' and any byte; Incomplete or Invalid if it isn't
    // there.
    ParseResult read_line(std::string_view too_big, std::string_view& line);

    int64_t bulk_max_;
    std::string_view input_;
    State state_ = State::Done;
    size_t position_ = 0;
    int64_t arguments_left_ = 0;
    int64_t bulk_length_ = -1;
    bool canonical_ = true;
    bool is_blank_ = false;      // this command is a line of blanks: the server takes the next
    bool after_blanks_ = false;  // request as inline, whatever it is
    uint32_t count_ = 0;         // arguments that were read
    std::vector<CommandView::Range> ranges_;  // theirs come first
    std::string inline_arguments_;
    CommandView command_;
    std::string error_;
};

}  // namespace nearkey
