// Rules that tests may break, to prove that tests/coherence or tests/simulation finds what is then
// wrong (docs/near_cache.md has the table). Only nearkey_sabotaged can break any; it is never
// installed. A .cc file that includes this is compiled once more for it; a header must not.
#pragma once

namespace nearkey {

enum class Rule {
    OwnWrite,         // a write from this host invalidates its keys
    FillTicket,       // a reply is not stored if its key was invalidated meanwhile
    Lease,            // a reply is not served if its source is unproven for too long
    Generation,       // replies stored from a lost connection are void
    Push,             // every invalidation counts; broken: one in a thousand is dropped
    NullPush,         // a push without keys invalidates all keys
    Database,         // an entry belongs to one database
    QueuedWrite,      // writes queued in a transaction count at its EXEC
    OtherLoops,       // a proof asks the connections of every event loop
    OtherConnection,  // a reply over a lease may be ahead of the news
    QueuedRead,       // so may EXEC's, with reads queued step by step
    WholeRead,        // or with reads of a transaction that arrived whole
    UnfilledPart,     // or an MGET's, for its keys that are not stored
    TtlSent,          // the time left of a key counts from when it was asked for
    SwapDbAsked,      // so does the proof by the number of SWAPDBs
    LostScript,       // the writes of a lost script are not known
    Upstream,         // replies of another upstream are void
    VoidFill,         // a hit does not follow a read in flight whose key has changed
    Way,              // a command behind a change of way waits for a proof
    OwnershipBeat,    // a server that has become a replica proves nothing
    Suspicion,        // a silent server gets nothing before it has said what it is
    FailoverVoid,     // replies of a former primary are void
    Ownership,        // a node of a cluster proves that it owns slots, not only that it answers
    Absence,          // that a key was not there is stored for max_staleness_ms at most
    RedirectVoid,     // what is stored of a slot is void where a server sends one of its keys on
    Gate,             // a command waits for those before it that may be on their way elsewhere
    EarlyReply,       // a reply that is here before its turn waits for it
    ReplicaOwnWrite,  // a replica answers for a slot once it is known to have this host's writes
    ReplicaBound,     // and only while it is known to be within cluster.replica_lag_max_ms
    ReplicaAsked,     // which counts from when its primary was asked, not from the answer
    SegmentVoid,      // what leaves the near cache leaves the segment
    SegmentSource,    // what came from a closed or suspended source is not served from there
    SegmentEpoch,     // nor what is void by a slot that moved
    SegmentOff,       // nor anything while the near cache rests, or somebody monitors
    SegmentReuse,     // an item's entry is gone before its memory is used again
    SegmentAhead,     // a RESP3 reply waits for its proof, too, once there are readers
    SegmentOpened,    // a reader gets the segment behind a proof
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
