// Rules that tests may break, to prove that tests/coherence finds what is then wrong. Only the
// build with -Dsabotage=true can break any; it is never installed.
#pragma once

namespace nearkey {

enum class Rule {
    OwnWrite,    // a write from this host invalidates its keys
    FillTicket,  // what is being read is not stored once its key was invalidated
    Lease,       // nothing is served that was not proven for too long
    Generation,  // what came from a lost connection is void
    Push,        // every invalidation counts; broken: one in a thousand is dropped
    NullPush,    // a push without keys is of all keys
    Database,    // an entry belongs to one database
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
