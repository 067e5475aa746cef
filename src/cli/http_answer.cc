#include "nearkey/cli/http_answer.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/parse_number.h"

#include <charconv>
#include <cstdint>
#include <optional>

namespace nearkey {

namespace {

using State = HttpAnswer::State;

constexpr std::string_view kLineEnd = "\r\n";

// Takes one line off the front; nothing if there is no whole one.
std::optional<std::string_view> take_line(std::string_view& rest) {
    const size_t end = rest.find(kLineEnd);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + kLineEnd.size());
    return line;
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
        text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
        text.remove_suffix(1);
    return text;
}

// "HTTP/1.1 200 OK"; the words may be missing.
std::optional<unsigned> status_of(std::string_view line) {
    constexpr size_t kAt = std::string_view("HTTP/1.1 ").size();
    const bool has_version = line.starts_with("HTTP/1.0 ") || line.starts_with("HTTP/1.1 ");
    if (!has_version || (line.size() > kAt + 3 && line[kAt + 3] != ' ')) return std::nullopt;
    const auto status = parse_number<unsigned>(line.substr(kAt, 3));
    return status && *status >= 100 && *status <= 599 ? status : std::nullopt;
}

struct Framing {
    std::optional<uint64_t> length;
    bool is_chunked = false;
};

// Takes the headers and the empty line after them.
State take_headers(std::string_view& rest, Framing& framing) {
    while (true) {
        const auto line = take_line(rest);
        if (!line) return State::CutShort;
        if (line->empty()) return State::Whole;
        const size_t colon = line->find(':');
        if (colon == std::string_view::npos) return State::NotHttp;
        const std::string_view name = line->substr(0, colon);
        const std::string_view value = trimmed(line->substr(colon + 1));
        if (equals_ignoring_case(name, "Content-Length")) {
            const auto length = parse_number<uint64_t>(value);
            if (!length || (framing.length && framing.length != length)) return State::NotHttp;
            framing.length = length;
        } else if (equals_ignoring_case(name, "Transfer-Encoding")) {
            if (!equals_ignoring_case(value, "chunked")) return State::NotHttp;
            framing.is_chunked = true;
        }
    }
}

// "1a;extension": hexadecimal.
std::optional<uint64_t> chunk_size(std::string_view line) {
    line = trimmed(line.substr(0, line.find(';')));
    uint64_t size = 0;
    const auto result = std::from_chars(line.data(), line.data() + line.size(), size, 16);
    const bool is_number = result.ec == std::errc() && result.ptr == line.data() + line.size();
    return is_number ? std::optional(size) : std::nullopt;
}

// Bytes behind the last chunk are of no interest.
State take_chunks(std::string_view rest, std::string& body) {
    while (true) {
        const auto line = take_line(rest);
        if (!line) return State::CutShort;
        const auto size = chunk_size(*line);
        if (!size) return State::NotHttp;
        if (*size == 0) return State::Whole;
        if (rest.size() < kLineEnd.size() || *size > rest.size() - kLineEnd.size()) {
            return State::CutShort;
        }
        body.append(rest.substr(0, *size));
        rest.remove_prefix(*size);
        if (!rest.starts_with(kLineEnd)) return State::NotHttp;
        rest.remove_prefix(kLineEnd.size());
    }
}

State take_body(std::string_view rest, const Framing& framing, std::string& body) {
    if (framing.is_chunked) return take_chunks(rest, body);
    if (framing.length && *framing.length > rest.size()) return State::CutShort;
    body = rest.substr(0, framing.length.value_or(rest.size()));
    return State::Whole;
}

}  // namespace

HttpAnswer parse_http_answer(std::string_view bytes) {
    constexpr std::string_view kStart = "HTTP/1.";
    HttpAnswer answer;
    if (!bytes.substr(0, kStart.size()).starts_with(kStart.substr(0, bytes.size()))) return answer;
    std::string_view rest = bytes;
    const auto line = take_line(rest);
    if (!line) {
        answer.state = State::CutShort;
        return answer;
    }
    const auto status = status_of(*line);
    if (!status) return answer;
    answer.status = *status;
    Framing framing;
    answer.state = take_headers(rest, framing);
    if (answer.state == State::Whole) answer.state = take_body(rest, framing, answer.body);
    return answer;
}

}  // namespace nearkey
