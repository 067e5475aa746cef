// Compares hits with what Valkey says: reads the truth behind every so-manieth one
// (near_cache.audit_ratio), and tells by metrics how many differed and for how long.
// Owned by ConnectionPool. The one rule: it changes nothing of what a client gets, and at most one
// audit is in flight; what is due meanwhile is passed over.
//
//   hit ─is_due()─▶ note() ─▶ Reading ──equal──▶ over
//                                │ differs                  dropped meanwhile: late
//                                ▼                            ▲           ▲
//                             Proving: all news from before ──┘           │
//                                │ is known, and it is still served       │ all was void
//                                ▼                                        │
//                             Doubting: until no SWAPDB explains it ──────┘──▶ violation
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/upstream/proof_waiter.h"
#include "nearkey/upstream/request.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class ConnectionPool;
class Log;

class Auditor final : private ReplyReceiver, private ProofWaiter {
public:
    struct Hit {
        int protocol;
        const CacheQuery& query;
        const CommandView& command;
        std::string_view reply;
        bool reads_fields;  // of a hash
    };
    // Outlived by all references. REQUIRES: the pool has a cache.
    Auditor(ConnectionPool& pool, Metrics& metrics, Log& log);

    // With each hit: whether this one is to be noted.
    bool is_due() { return --hits_left_ == 0; }
    void note(const Hit& hit);
    // With each heartbeat.
    void beat();
    // Chooses the next hit, by near_cache.audit_ratio as it is now.
    void schedule();

private:
    enum class State : uint8_t { Idle, Reading, Proving, Doubting };

    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t) override { return false; }
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    // ProofWaiter
    void on_proven() override;

    void judge(std::string_view truth);
    bool is_same(std::string_view truth) const;
    void end_late();
    void end_violated();

    ConnectionPool& pool_;
    Metrics& metrics_;
    Log& log_;
    const NearCache::WatchId watch_;

    uint64_t hits_left_ = UINT64_MAX;  // until the next one that is noted
    double carried_ = 0;               // of a hit, from one gap to the next

    State state_ = State::Idle;
    std::string command_;  // its name, as the client wrote it
    std::string served_;
    std::string truth_;
    size_t key_hash_ = 0;
    uint64_t hit_ms_ = 0;   // all on Loop::boot_ms()
    uint64_t read_ms_ = 0;  // when the truth was here
    uint64_t logged_ms_ = 0;
    uint64_t clears_ = 0;  // of the metric, at the hit
};

}  // namespace nearkey
