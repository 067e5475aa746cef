// What clients of a listener with face = "cluster" are told: the listener is the one node of a
// cluster, and owns all slots. So a cluster-aware client sends everything to nearkey, and follows
// no slot by itself.
// Pure functions. The one rule: no address of a server behind nearkey is told; a client that goes
// there goes around nearkey.
#pragma once

#include "nearkey/dispatch/placement.h"
#include "nearkey/session/call.h"
#include "nearkey/upstream/url.h"

#include <string>
#include <string_view>

namespace nearkey {

// It is about the cluster as a client sees it: CLUSTER SLOTS, READONLY ... , with a sound number of
// arguments.
bool is_about_face(const Call& call);

// Where it runs if it is about keys of a slot (CLUSTER COUNTKEYSINSLOT, GETKEYSINSLOT), or if any
// server can answer it. Nowhere: nearkey does (answer_of_face()).
Placement place_in_face(const Call& call);

// It is, no rule refuses it, and nearkey answers it.
bool is_answered_by_face(const Call& call);

// REQUIRES: is_about_face(). `node`: what the listener is reached by.
std::string answer_of_face(const Call& call, const Endpoint& node, Protocol protocol);

}  // namespace nearkey
