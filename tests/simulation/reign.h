// The time for which one server is the primary, and what clients may be shown over a failover.
// Owned by the world. Each reign but the last knows the next.
//
// A failover begins a reign: a replica becomes the primary, with what it has of the former's
// history. Nothing is missing of that if it was planned. Else the end of it is, from the same
// moment on for all keys and all clients; so is all that the former does until it knows that it is
// no primary any more. The rules, for the clients of one nearkey:
//   1. Until that nearkey turns to the next primary, a read is judged by the former's history,
//      which goes on for as long as the former does not know.
//   2. A read that begins after the turn is judged by the next one's history alone: what only the
//      former had is UNKNOWN there, however young it is, and what both had and was answered through
//      this nearkey is not unseen again (OWN).
//   3. A read that began before the turn and is answered after it may show either. But no session
//      that was shown what only the next one has is shown what the former had (BACK).
//   4. What the former answered counts for the next one's history if that has it. So a write that
//      is lost is no violation, and a read that shows it after the turn is one.
// A nearkey that was not told of the next primary finds out itself, or asks; from then on a read
// may not show what the next one's history would not allow for a change from elsewhere:
//   5. if it begins `near_cache.max_staleness_ms` after the former knew that it is no primary;
//   6. if it begins after the promotion while the server was silent for upstream.suspect_after_ms,
//      or no connection was left: the oracle has to say that it is the primary still.
// In a cluster a failover begins a reign of all nodes. Only the slots that were taken over have
// lost anything; of all others each key goes on from where it is. A nearkey has turned, for a
// slot, once all of its event loops know of another owner of it (rules 1 to 3), and by rule 5 in
// any case; BACK is judged between reigns where it has one event loop. While the former is frozen
// or dead only what is stored shows its history, and no longer than for
// `near_cache.max_staleness_ms`.
#pragma once

#include "history.h"

#include "nearkey/resp/slot.h"

#include <bitset>
#include <cstdint>
#include <memory>

namespace nearkey::simulation {

class ModelValkey;

struct Reign {
    ModelValkey* primary;
    History history;
    uint64_t since_us = 0;
    std::unique_ptr<Reign> next{};
    uint64_t ended_us = UINT64_MAX;  // when its primary knows it
    // In a cluster: the slots that its primary took over. Of all others the history went
    // on, and only the primary of the former reign, which is deposed, does not know.
    std::bitset<kSlots> slots{};
    const ModelValkey* former = nullptr;
    // Between these its primary, which has not been told yet, has said nothing.
    uint64_t silent_since_us = UINT64_MAX;
    uint64_t silent_until_us = UINT64_MAX;
};

}  // namespace nearkey::simulation
