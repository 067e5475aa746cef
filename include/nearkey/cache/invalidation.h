// Why stored replies are dropped, and what the last reason was for a key: NEARKEY EXPLAIN shows it.
// The log is owned by NearCache. It remembers a bounded number of keys, each by its hash.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nearkey {

enum class InvalidationCause : uint8_t {
    None,
    Push,     // Valkey said so
    Flush,    // Valkey said so of every key
    Write,    // a write from this host
    Barrier,  // a command from this host whose keys are not known
    Lost,     // the connection that is told of changes was lost
    SwapDb,
    Fields,    // of hashes may expire by themselves
    Asked,     // NEARKEY CACHE CLEAR
    Memory,    // there is too little
    Upstream,  // another one was named
    Options,   // of the near cache were changed
};
inline std::string_view name_of(InvalidationCause cause) {
    static constexpr auto kNames = std::to_array<std::string_view>(
        {"none", "push", "flush", "write", "barrier", "lost", "swapdb", "fields", "asked", "memory",
         "upstream", "options"});
    static_assert(kNames.size() == static_cast<size_t>(InvalidationCause::Options) + 1);
    return kNames[static_cast<size_t>(cause)];
}

struct Invalidation {
    uint32_t hash = 0;
    InvalidationCause cause = InvalidationCause::None;
    uint64_t at_ms = 0;
};

class InvalidationLog {
public:
    void note(const Invalidation& of_key) { last_[of_key.hash % kRemembered] = of_key; }
    void note_all(InvalidationCause cause, uint64_t at_ms) { last_of_all_ = {0, cause, at_ms}; }
    // The last one of the key with this hash, or of everything.
    const Invalidation& last_of(uint32_t hash) const {
        const Invalidation& of_key = last_[hash % kRemembered];
        const bool is_of_key = of_key.cause != InvalidationCause::None && of_key.hash == hash &&
                               of_key.at_ms >= last_of_all_.at_ms;
        return is_of_key ? of_key : last_of_all_;
    }

private:
    static constexpr size_t kRemembered = 1024;
    std::array<Invalidation, kRemembered> last_;  // of keys, by hash
    Invalidation last_of_all_;
};

}  // namespace nearkey
