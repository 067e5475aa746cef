#include "nearkey/resp/reply_writer.h"

#include <charconv>

namespace nearkey {

namespace {

void append_line(std::string& out, char type, int64_t number) {
    char digits[24];
    const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number);
    out += type;
    out.append(digits, end);
    out += "\r\n";
}

}  // namespace

void append_error(std::string& out, std::string_view text) {
    out += '-';
    for (const char c : text)
        out += c == '\r' || c == '\n' ? ' ' : c;
    out += "\r\n";
}

void append_integer(std::string& out, int64_t value) {
    append_line(out, ':', value);
}

void append_bulk(std::string& out, std::string_view text) {
    append_line(out, '$', static_cast<int64_t>(text.size()));
    out += text;
    out += "\r\n";
}

void append_null(std::string& out, Protocol protocol) {
    out += protocol == Protocol::Resp3 ? "_\r\n" : "$-1\r\n";
}

void append_array_header(std::string& out, size_t elements) {
    append_line(out, '*', static_cast<int64_t>(elements));
}

void append_map_header(std::string& out, size_t pairs, Protocol protocol) {
    if (protocol == Protocol::Resp3) {
        append_line(out, '%', static_cast<int64_t>(pairs));
    } else {
        append_array_header(out, pairs * 2);
    }
}

}  // namespace nearkey
