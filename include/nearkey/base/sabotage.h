// Rules that tests may break, to prove that tests/coherence or tests/simulation finds what is then
// wrong (docs/near_cache.md has the table). Only the build with -Dsabotage=true can break any; it
// is never installed.
#pragma once

namespace nearkey {

enum class Rule {
    OwnWrite,         // a write from this host invalidates its keys
    FillTicket,       // what is being read is not stored once its key was invalidated
    Lease,            // nothing is served that was not proven for too long
    Generation,       // what came from a lost connection is void
    Push,             // every invalidation counts; broken: one in a thousand is dropped
    NullPush,         // a push without keys is of all keys
    Database,         // an entry belongs to one database
    QueuedWrite,      // what is queued in a transaction is written by its EXEC
    OtherLoops,       // a proof asks the connections of every event loop
    OtherConnection,  // a reply over a lease may be ahead of the news
    QueuedRead,       // so may that of EXEC be, of reads queued step by step
    WholeRead,        // or of those of a transaction that arrived whole
    UnfilledPart,     // or that of an MGET, of keys that are not stored of it
    TtlSent,          // the time left of a key counts from when it was asked for
    SwapDbAsked,      // so does what the number of SWAPDBs proves
    LostScript,       // what a lost script has written is not known
    Upstream,         // what another upstream has said is void
    VoidFill,         // a hit does not follow a read in flight whose key has changed
    Way,              // what follows a change of way waits for a proof
};

#ifdef NEARKEY_SABOTAGE
// NEARKEY_SABOTAGE in the environment names the one that is broken.
bool is_broken(Rule rule);
#else
constexpr bool is_broken(Rule) {
    return false;
}
#endif

}  // namespace nearkey
