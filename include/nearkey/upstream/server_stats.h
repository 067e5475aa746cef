// Reads from the server's statistics what it tells in no other way: each SWAPDB, and whether fields
// of hashes expire by themselves. They are asked for with each heartbeat (INFO commandstats
// keyspace), and void stored replies.
// Owned by NodeCoherence.
#pragma once

#include "nearkey/upstream/own_question.h"
#include "nearkey/upstream/swap_watch.h"

#include <cstdint>
#include <functional>
#include <string_view>

namespace nearkey {

struct ConnectionContext;
class ServerCatalog;

// Reads INFO keyspace for fields that expire by themselves (Valkey 9; Redis 7.4 has them too). PTTL
// tells nothing of them, and the server reclaims a field some time after it has expired.
// True if any key has such fields, or the server does not say so. `info` may hold other sections.
// REQUIRES: the server knows HPEXPIRE.
[[nodiscard]] bool has_expiring_fields(std::string_view info);

class ServerStats final {
public:
    // All outlive it. `on_known`: swapdb_known_ms() is later from now on.
    ServerStats(ConnectionContext& context, const ServerCatalog& catalog,
                std::function<void()> on_known);

    // REQUIRES: there is a near cache.
    void ask(Connection& primary);
    // Every SWAPDB before this time is known, or none ever will be.
    uint64_t swapdb_known_ms() const { return is_hidden_ ? UINT64_MAX : swapdb_proven_ms_; }
    // A SWAPDB from now on will be known, or none ever will be.
    bool counts_swapdb() const { return swaps_.is_counting() || is_hidden_; }
    // The fields of some hash expire, or may.
    bool fields_expire() const { return fields_expire_; }

    // The primary connection was lost: the counts to come may be another server's.
    void note_lost() { swaps_.forget(); }
    // Another server is to be asked.
    void forget();

private:
    void on_stats(std::string_view reply);
    void on_refused(std::string_view reply);
    void note_fields(std::string_view info);

    ConnectionContext& context_;
    const ServerCatalog& catalog_;
    const std::function<void()> on_known_;
    Question question_;
    SwapWatch swaps_;
    bool is_hidden_ = false;  // Valkey does not tell us its statistics
    uint64_t sent_ms_ = 0;    // Loop::boot_ms()
    uint64_t swapdb_proven_ms_ = 0;
    bool fields_expire_ = true;
};

}  // namespace nearkey
