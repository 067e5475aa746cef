// Re-reads a sample of the hits from Valkey (near_cache.audit_ratio), and counts those that differ
// and for how long.
// Owned by NodeCoherence. The one rule: it changes no client's reply, and at most one audit is in
// flight; hits that are due meanwhile are passed over.
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
#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/proof_rounds.h"
#include "nearkey/upstream/request.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class Log;
class NodeCoherence;
class SharedConnections;
struct ConnectionContext;

class Auditor final : private ReplyReceiver, private ProofWaiter {
public:
    struct Hit {
        Protocol protocol;
        const CacheQuery& query;
        const CommandView& command;
        std::string_view reply;
        bool reads_fields;  // of a hash
    };
    // Outlived by all references. REQUIRES: there is a near cache.
    Auditor(NodeCoherence& coherence, ConnectionContext& context, SharedConnections& connections);

    // Called with each hit: true if this one is to be noted, and the next one to be chosen. In a
    // cluster the seed's auditor chooses, and that of the key's node notes.
    // A hit that stands for others, of which only the client knows, is due if any is.
    bool is_due(uint32_t others) {
        const bool is_next = --hits_left_ == 0;
        return is_next || (others > 0 && hits_left_ < UINT64_MAX / 2);
    }
    // Chooses the next hit, by near_cache.audit_ratio as it is now.
    void schedule();
    void note(const Hit& hit);
    // Called with each heartbeat.
    void beat();
    // It waits for proofs, and must outlive them.
    bool is_proving() const { return state_ == State::Proving; }

private:
    enum class State : uint8_t { Idle, Reading, Proving, Doubting };

    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool follows_redirects() const override { return false; }
    bool on_reply_void(uint32_t) override { return false; }
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    // ProofWaiter
    void on_proven() override;

    void judge(std::string_view truth);
    bool is_same(std::string_view truth) const;
    void end_late();
    void end_violated();

    NodeCoherence& coherence_;
    SharedConnections& connections_;
    NearCache& cache_;
    Metrics& metrics_;
    Log& log_;
    NearCache::Watch watch_;

    uint64_t hits_left_ = UINT64_MAX;  // until the next one that is noted
    double carried_ = 0;               // part of a hit, from one gap to the next

    State state_ = State::Idle;
    std::string command_;  // the command's name, as the client wrote it
    std::string served_;
    std::string truth_;
    size_t key_hash_ = 0;
    uint64_t hit_ms_ = 0;   // all on Loop::boot_ms()
    uint64_t read_ms_ = 0;  // when Valkey's reply was here
    uint64_t logged_ms_ = 0;
};

}  // namespace nearkey
