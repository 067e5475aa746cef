#include "nearkey/session/expected_reads.h"

#include <string.h>

namespace nearkey {

namespace {
// Input of this size may be a read that came alone; more is several commands, or a large one.
constexpr size_t kLoneReadMax = 512;
constexpr size_t kLookaheadMax = size_t{64} << 10;
constexpr std::string_view kOneArgument = "*2\r\n";

// Returns the argument if `input` is exactly one single-argument command (most likely GET key),
// else an empty view.
std::string_view lone_key(std::string_view input) {
    if (!input.starts_with(kOneArgument) || !input.ends_with("\r\n")) return {};
    input.remove_suffix(2);
    const void* const line_end = memrchr(input.data(), '\n', input.size());
    if (line_end == nullptr) return {};
    return input.substr(static_cast<size_t>(static_cast<const char*>(line_end) - input.data()) + 1);
}

bool may_expect(Desk& desk) {
    const NearCache* const cache = desk.context.ledgers.cache;
    return cache != nullptr && desk.client.cache_use == CacheUse::On &&
           cache->bytes() >= desk.context.expected_from_bytes;
}
}  // namespace

bool expect_lone_read(Desk& desk, std::string_view input) {
    if (!may_expect(desk) || input.size() > kLoneReadMax) return false;
    const std::string_view key = lone_key(input);
    if (key.empty()) return false;
    desk.context.ledgers.cache->expect(key, desk.context.expected);
    return true;
}

void expect_batch(Desk& desk, std::string_view input) {
    if (!may_expect(desk) || input.size() <= kLoneReadMax) return;
    if (!input.starts_with(kOneArgument)) return;
    // A large input is not looked through: its arguments would be kept twice.
    input = input.substr(0, kLookaheadMax);
    NearCache& cache = *desk.context.ledgers.cache;
    const NearCache::Hold hold(cache);
    CommandParser& parser = desk.context.lookahead;
    parser.begin_stream();
    for (size_t i = 0; i < kExpectedAtOnce && parser.next(input) == ParseResult::Command; ++i) {
        const CommandView& command = parser.command();
        if (command.size() == 2) cache.expect(command[1], desk.context.expected);
        input.remove_prefix(parser.consumed());
    }
}

}  // namespace nearkey
