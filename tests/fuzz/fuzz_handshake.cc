// Upstream bytes -> Handshake: whatever the server answers, what we say is one canonical command at
// a time from a short list, it ends after a few replies, and a failure has a kind.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/reply_scanner.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/handshake.h"

#include <algorithm>
#include <array>
#include <optional>

using nearkey::CommandParser;
using nearkey::Handshake;
using nearkey::ParseResult;
using nearkey::Protocol;
using nearkey::ReplyScanner;
using nearkey::ScanResult;
using nearkey::UpstreamUrl;
using nearkey::Value;
using nearkey::fuzz::Choices;

namespace {

// HELLO, SELECT, CLIENT SETNAME, PING, and room for what handshakes may learn to say.
constexpr int kRepliesMax = 8;

void check_command(const std::string& command) {
    constexpr std::array<std::string_view, 5> kWords = {"HELLO", "AUTH", "SELECT", "CLIENT",
                                                        "PING"};
    CommandParser parser(INT64_MAX);
    NEARKEY_CHECK(parser.next(command) == ParseResult::Command);
    NEARKEY_CHECK(parser.consumed() == command.size());
    NEARKEY_CHECK(parser.command().is_canonical());
    NEARKEY_CHECK(std::find(kWords.begin(), kWords.end(), parser.command()[0]) != kWords.end());
}

void check_state(const Handshake& handshake) {
    const bool has_failed = handshake.failure() != Handshake::Failure::None;
    NEARKEY_CHECK(!(handshake.is_complete() && has_failed));
    NEARKEY_CHECK(handshake.command().empty() == (handshake.is_complete() || has_failed));
    NEARKEY_CHECK(has_failed || handshake.error().empty());
    if (!handshake.command().empty()) check_command(handshake.command());
}

std::optional<Value> take_reply(std::string_view& bytes) {
    ReplyScanner scanner;
    size_t taken = 0;
    if (scanner.scan(bytes, taken) != ScanResult::Complete) return std::nullopt;
    const std::string_view reply = bytes.substr(0, taken);
    bytes.remove_prefix(taken);
    return nearkey::parse_value(reply);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Choices choices(nearkey::fuzz::as_text(data, size));
    UpstreamUrl url;
    const size_t settings = choices.below(64);
    if ((settings & 1U) != 0) url.user = choices.text(20);
    if ((settings & 2U) != 0) url.password = choices.text(20);
    const std::string client_name = (settings & 4U) != 0 ? "nearkey" : "";
    const int database = (settings & 8U) != 0 ? static_cast<int>(choices.below(256)) : 0;
    const auto protocol = (settings & 16U) != 0 ? Protocol::Resp3 : Protocol::Resp2;
    Handshake handshake(url, client_name, {protocol, database, true});

    std::string_view bytes = choices.rest();
    int replies = 0;
    check_state(handshake);
    while (const std::optional<Value> reply = take_reply(bytes)) {
        const bool was_over = handshake.command().empty();
        const bool was_complete = handshake.is_complete();
        const bool was_ping = handshake.command() == "*1\r\n$4\r\nPING\r\n";
        handshake.on_reply(*reply);
        check_state(handshake);
        NEARKEY_CHECK(!was_over || handshake.is_complete() == was_complete);
        replies += was_over ? 0 : 1;
        NEARKEY_CHECK(replies < kRepliesMax || handshake.command().empty());
        // PING may be refused by a server that runs other commands.
        const bool has_completed = handshake.is_complete() && !was_complete;
        NEARKEY_CHECK(!has_completed || !reply->is_error() || was_ping);
        NEARKEY_CHECK(!was_ping || !has_completed || !reply->text.starts_with("NOAUTH"));
    }
    return 0;
}
