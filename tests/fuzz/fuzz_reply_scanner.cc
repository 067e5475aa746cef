// Upstream bytes -> ReplyScanner and parse_value(). However the bytes are cut, replies end where
// they end; a plain recursive reader finds the same ends; and whatever the scanner lets through,
// the value parser reads, unless it is too deep.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_scanner.h"
#include "nearkey/resp/value.h"

#include <algorithm>
#include <optional>

using nearkey::parse_value;
using nearkey::Protocol;
using nearkey::ReplyScanner;
using nearkey::ScanResult;
using nearkey::Value;

namespace {

constexpr int kDepthMax = 16;  // of parse_value(), which says so in value.h

struct Scanned {
    std::vector<size_t> ends;
    std::string types;
    ScanResult state = ScanResult::Incomplete;

    bool operator==(const Scanned&) const = default;
};

Scanned scan_in_pieces(std::string_view bytes, const nearkey::fuzz::Cuts& cuts) {
    Scanned scanned;
    ReplyScanner scanner;
    size_t start = 0;
    for (const size_t end : cuts) {
        const nearkey::fuzz::ExactCopy piece(bytes.substr(start, end - start));
        std::string_view rest = piece.view();
        while (!rest.empty()) {
            size_t taken = 0;
            scanned.state = scanner.scan(rest, taken);
            if (scanned.state == ScanResult::Malformed) return scanned;
            NEARKEY_CHECK(taken <= rest.size());
            NEARKEY_CHECK(scanned.state == ScanResult::Complete || taken == rest.size());
            rest.remove_prefix(taken);
            if (scanned.state == ScanResult::Incomplete) continue;
            NEARKEY_CHECK(taken > 0);
            scanned.ends.push_back(end - rest.size());
            scanned.types += scanner.type();
        }
        start = end;
    }
    return scanned;
}

// A reply as a recursive reader finds it. Used only on bytes that the scanner called complete.
struct Framed {
    size_t end = 0;
    int depth = 0;  // as parse_value() counts it
};

// A line ends at "\r\n" and nowhere else: Valkey sends bare newlines in the errors of scripts.
void frame(std::string_view reply, int depth, Framed& framed) {
    framed.depth = std::max(framed.depth, depth);
    NEARKEY_CHECK(framed.end < reply.size());
    const char type = reply[framed.end];
    const size_t line_end = reply.find("\r\n", framed.end);
    NEARKEY_CHECK(line_end != std::string_view::npos);
    const std::string_view line = reply.substr(framed.end + 1, line_end - framed.end - 1);
    framed.end = line_end + 2;
    if (std::string_view("+-,(:_#").find(type) != std::string_view::npos) return;
    const auto count = nearkey::parse_integer(line);
    NEARKEY_CHECK(count);
    if (*count < 0) return;
    if (std::string_view("$=!").find(type) != std::string_view::npos) {
        framed.end += static_cast<size_t>(*count) + 2;
        NEARKEY_CHECK(reply.substr(framed.end - 2, 2) == "\r\n");
        return;
    }
    const int64_t children = type == '%' ? 2 * *count : type == '|' ? 2 * *count + 1 : *count;
    for (int64_t i = 0; i < children; ++i)
        frame(reply, depth + 1, framed);
}

bool is_resp2(const Value& value) {
    const bool is_known = std::string_view("$:_*").find(value.type) != std::string_view::npos;
    return is_known && std::all_of(value.elements.begin(), value.elements.end(), is_resp2);
}

// What append_value() writes is one reply, and reads as what it was written from.
void check_written(const Value& value, Protocol protocol) {
    std::string written;
    append_value(written, value, protocol);
    ReplyScanner scanner;
    size_t taken = 0;
    NEARKEY_CHECK(scanner.scan(written, taken) == ScanResult::Complete);
    NEARKEY_CHECK(taken == written.size());
    const std::optional<Value> again = parse_value(written);
    NEARKEY_CHECK(again);
    NEARKEY_CHECK(protocol == Protocol::Resp3 || is_resp2(*again));
    std::string rewritten;
    append_value(rewritten, *again, protocol);
    NEARKEY_CHECK(rewritten == written);
}

void check_reply(std::string_view reply) {
    Framed framed;
    frame(reply, 0, framed);
    NEARKEY_CHECK(framed.end == reply.size());
    const nearkey::fuzz::ExactCopy copy(reply);
    const std::optional<Value> value = parse_value(copy.view());
    NEARKEY_CHECK(value.has_value() == (framed.depth <= kDepthMax));
    if (!value) return;
    for (const Protocol protocol : {Protocol::Resp2, Protocol::Resp3})
        check_written(*value, protocol);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes = nearkey::fuzz::as_text(data, size);
    const Scanned whole = scan_in_pieces(bytes, {bytes.size()});
    for (const nearkey::fuzz::Cuts& cuts : nearkey::fuzz::ways_to_cut(bytes)) {
        NEARKEY_CHECK(scan_in_pieces(bytes, cuts) == whole);
    }
    size_t start = 0;
    for (size_t i = 0; i < whole.ends.size(); ++i) {
        NEARKEY_CHECK(whole.types[i] == bytes[start]);
        check_reply(bytes.substr(start, whole.ends[i] - start));
        start = whole.ends[i];
    }
    // Any bytes at all: no more than an answer is asked for.
    const nearkey::fuzz::ExactCopy copy(bytes);
    (void)parse_value(copy.view());
    return 0;
}
