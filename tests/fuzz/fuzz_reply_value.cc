// Values -> bytes -> ReplyScanner and parse_value(): the bytes choose a reply of any RESP2 and
// RESP3 types, which is encoded; it must end where it ends, and read as what it was.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_scanner.h"
#include "nearkey/resp/value.h"

#include <optional>

using nearkey::parse_value;
using nearkey::ReplyScanner;
using nearkey::ScanResult;
using nearkey::Value;
using nearkey::fuzz::Choices;

namespace {

constexpr int kDepthMax = 16;

bool is_equal(const Value& a, const Value& b) {
    if (a.type != b.type || a.text != b.text || a.integer != b.integer) return false;
    if (a.elements.size() != b.elements.size()) return false;
    for (size_t i = 0; i < a.elements.size(); ++i) {
        if (!is_equal(a.elements[i], b.elements[i])) return false;
    }
    return true;
}

// What may stand in a line: anything but its end.
std::string without_line_ends(std::string text) {
    for (size_t at = 0; (at = text.find("\r\n", at)) != std::string::npos;)
        text[at] = ' ';
    if (text.ends_with('\r')) text.back() = ' ';
    return text;
}

// A value that the bytes choose, and its encoding appended to `out`.
class ReplyMaker {
public:
    ReplyMaker(Choices& choices, std::string& out) : choices_(choices), out_(out) {}

    Value make(int depth) {
        constexpr std::string_view kTypes = "+-:$_#,(=!*%~>|";
        const bool has_room = depth < kDepthMax;
        const char type = kTypes[choices_.below(has_room ? kTypes.size() : 10)];
        Value value;
        value.type = type;
        if (std::string_view("*%~>").find(type) != std::string_view::npos) {
            make_aggregate(value, depth);
        } else if (type == '|') {
            return make_attribute(depth);
        } else if (std::string_view("$=!").find(type) != std::string_view::npos) {
            make_bulk(value);
        } else {
            make_line(value);
        }
        return value;
    }

private:
    void make_line(Value& value) {
        if (value.type == ':') {
            const auto magnitude = static_cast<int64_t>(choices_.below(256));
            value.integer = choices_.below(2) == 0 ? magnitude : -magnitude * 36028797018963967;
            value.text = std::to_string(value.integer);
        } else if (value.type == '#') {
            value.text = choices_.below(2) == 0 ? "t" : "f";
        } else if (value.type != '_') {
            value.text = without_line_ends(choices_.text(100));
            // parse_value() also reads the number that a text happens to be.
            value.integer = nearkey::parse_integer(value.text).value_or(0);
        }
        out_ += value.type + value.text + "\r\n";
    }

    void make_bulk(Value& value) {
        if (value.type == '$' && choices_.below(8) == 7) {
            out_ += "$-1\r\n";
            value.type = '_';
            return;
        }
        value.text = choices_.text(40);
        out_ += value.type + std::to_string(value.text.size()) + "\r\n" + value.text + "\r\n";
    }

    void make_aggregate(Value& value, int depth) {
        if (value.type == '*' && choices_.below(8) == 7) {
            out_ += "*-1\r\n";
            value.type = '_';
            return;
        }
        const size_t count = choices_.below(5);
        out_ += value.type + std::to_string(count) + "\r\n";
        for (size_t i = 0; i < count * (value.type == '%' ? 2 : 1); ++i)
            value.elements.push_back(make(depth + 1));
    }

    // The attribute is dropped; what it describes is the value.
    Value make_attribute(int depth) {
        const size_t count = choices_.below(3);
        out_ += "|" + std::to_string(count) + "\r\n";
        for (size_t i = 0; i < 2 * count; ++i)
            make(depth + 1);
        return make(depth + 1);
    }

    Choices& choices_;
    std::string& out_;
};

// The reply in pieces, and more bytes right behind it in the last of them.
void check_end(std::string_view reply, std::string_view behind) {
    const std::string both = std::string(reply) + std::string(behind);
    for (const nearkey::fuzz::Cuts& cuts : nearkey::fuzz::ways_to_cut(both)) {
        ReplyScanner scanner;
        size_t start = 0;
        for (const size_t end : cuts) {
            const nearkey::fuzz::ExactCopy piece(std::string_view(both).substr(start, end - start));
            size_t taken = 0;
            const ScanResult result = scanner.scan(piece.view(), taken);
            start += taken;
            if (result == ScanResult::Complete) break;
            NEARKEY_CHECK(result == ScanResult::Incomplete);
            NEARKEY_CHECK(taken == piece.view().size());
        }
        NEARKEY_CHECK(start == reply.size());
        NEARKEY_CHECK(scanner.type() == reply[0]);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Choices choices(nearkey::fuzz::as_text(data, size));
    std::string reply;
    const Value made = ReplyMaker(choices, reply).make(0);
    if (reply.size() > size_t{1} << 16) return -1;
    check_end(reply, choices.rest().substr(0, 64));
    const nearkey::fuzz::ExactCopy copy(reply);
    const std::optional<Value> read = parse_value(copy.view());
    NEARKEY_CHECK(read);
    NEARKEY_CHECK(is_equal(*read, made));
    NEARKEY_CHECK(!parse_value(copy.view().substr(0, reply.size() - 1)));
    NEARKEY_CHECK(!parse_value(reply + "+"));
    return 0;
}
