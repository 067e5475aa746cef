// A blocking command that waits at the server for other clients (BLPOP, XREAD BLOCK ...), kept so
// that it can wait on at another server for the time that is left.
// Owned by BlockedWait. WAIT and WAITAOF are not among them: they count the replicas of one server.
#pragma once

#include "nearkey/resp/command_parser.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class BlockedCommand {
public:
    static constexpr size_t kBytesMax = size_t{64} << 10;

    // `name` as in CommandSpec. False: it is another command, or a long one, or has no time to wait
    // that we can read; nothing is kept.
    [[nodiscard]] bool keep(std::string_view name, const CommandView& command, uint64_t now_ms);
    // The bytes of the command as it came. REQUIRES: kept.
    std::string_view bytes() const { return bytes_; }
    // The command for the time that is left; at least the shortest time, so that the server itself
    // says that it is over.
    std::string bytes_from(uint64_t now_ms) const;
    bool is_time_over(uint64_t now_ms) const { return deadline_ms_ != 0 && deadline_ms_ <= now_ms; }
    void forget();
    size_t memory_bytes() const { return bytes_.capacity(); }

private:
    std::string bytes_;
    size_t timeout_begin_ = 0;  // the place in bytes_ of the timeout argument
    size_t timeout_size_ = 0;
    bool is_in_ms_ = false;     // that says so in milliseconds, not in seconds
    uint64_t deadline_ms_ = 0;  // 0: it waits for ever
};

}  // namespace nearkey
