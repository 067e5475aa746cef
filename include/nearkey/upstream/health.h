// Decides whether Valkey serves, as /readyz says it.
//
//   PONG, or a refusal of no more than PING and writes (MISCONF, NOPERM)  ──▶ ready
//   a refusal of reads (LOADING, MASTERDOWN, BUSY)                        ──▶ not ready once it has
//                                   lasted for unready_after_ms, or if it was not ready before
//   no answer for unready_after_ms, or no connection                      ──▶ not ready
//   its commands are not known yet, or it is not confirmed as the primary ──▶ not ready
//
// It decides nothing for clients: all commands are sent on while there is a connection. But while
// Valkey counts as away, reads may be answered with replies that may be untrue by now
// (near_cache.stale_if_unavailable_ms).
//
// It is away while no connection is ready, while it is LOADING, or while nothing at all has come
// from it for two heartbeats: that is before stored replies have been unproven for too long, so
// that no read in between drops them. Any byte from it ends the absence before it is handled.
// Replies stored from a lost connection are dropped when any connection becomes ready, before it
// has answered a read, and behind LOADING with the first PONG; those from one that was only silent
// are served again once it has proven them.
// Owned by Node.
#pragma once

#include "nearkey/upstream/handshake.h"
#include "nearkey/upstream/node_events.h"

#include <cstdint>
#include <string>

namespace nearkey {

struct ConnectionContext;

class Health final {
public:
    // All outlive it.
    Health(ConnectionContext& context, NodeEvents& events) : context_(context), events_(events) {}

    const UpstreamHealth& state() const { return state_; }
    // True if the server said LOADING last.
    bool is_loading() const { return pong_.refusal.starts_with("LOADING"); }

    void start();
    void note_pong(const Pong& pong);
    // No connection is left, or its commands were not known before one was lost.
    void note_absence(const std::string& reason);
    // The server's commands are not known; `reason` says why.
    void note_unknown(const std::string& reason);
    // They are being asked for.
    void note_asking();
    // Nothing was dialled yet.
    void note_turn() { set(false, "connecting to another upstream"); }

    struct Hindrances {
        bool is_unknown;      // its commands
        bool is_unconfirmed;  // as the primary, for too long
    };
    void update(const Hindrances& hindrances);

    void set_beat_interval_ms(uint64_t beat_interval_ms) { beat_interval_ms_ = beat_interval_ms; }
    // Looks whether anything has come.
    void tick();
    // True if reads are answered with replies that may be untrue by now: it is allowed, and Valkey
    // is away.
    bool serves_stale() const;
    // Nothing came before the last tick.
    bool may_be_silent() const { return silent_ticks_ > 0; }
    // Nothing has come for so long, though this loop listened.
    bool is_silent_for(uint64_t duration_ms) const;

private:
    uint64_t silence_limit_ms() const;
    void set(bool is_ready, std::string reason);

    ConnectionContext& context_;
    NodeEvents& events_;
    UpstreamHealth state_;
    uint64_t last_served_ms_ = 0;  // when the server last said that it runs reads
    Pong pong_;                    // its last word on itself
    std::string why_unknown_;      // why its commands are not known yet
    uint64_t beat_interval_ms_ = 0;
    uint32_t silent_ticks_ = 0;  // in a row
};

}  // namespace nearkey
