// Commands that the listener's rules refuse. Where nothing of the session is on a connection of its
// own, nearkey answers. Elsewhere the server must know, for its replies are in an order that only
// it can tell (a subscriber's), and a transaction with a refused command must not run: it is sent a
// stand-in, a command that it can't know, which it refuses at the same place; its error is
// exchanged for the one that Valkey has for a command that an ACL rule refuses. A refused EXEC ends
// the transaction all the same: it is sent DISCARD or UNWATCH. (In a tunnel, where nobody knows
// which, the transaction stays, and can't be ended but by DISCARD.)
#pragma once

#include "nearkey/session/call.h"
#include "nearkey/upstream/node.h"

#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// The error's text, as the server itself would have it.
std::string refusal_of(const Node& node, const Call& call);
// True if, before a cluster, the command would be answered by a node that can't speak for the
// others, or would give the client a connection to one. `keys` is scratch.
bool is_for_one_server(const Call& call, bool in_transaction, std::vector<std::string_view>& keys);
// The error's text for such a command. `keys` is scratch.
std::string cluster_refusal_of(const Call& call, bool in_transaction,
                               std::vector<std::string_view>& keys);
// The command that is sent to the server in its place. REQUIRES: a rule refuses it, or it
// is_for_one_server().
std::string stand_in_for(const Call& call);
// The server's error to a stand-in in the words of the refusal; every other reply as it is.
std::string in_words_of_refusal(const Node& node, std::string_view reply);
// The error in place of the reply to the command sent for a refused EXEC.
std::string exec_refusal(const Node& node);

// The plan of CONFIG GET that may show passwords: only the server knows the parameters behind a
// pattern, and it tells of them later. REQUIRES: plan.hides_secrets.
Plan plan_without_secrets(Plan plan, const Node& node, const CommandView& command,
                          const PlanFacts& facts);
// The call that shows all but passwords; empty: the client's own does. REQUIRES: it is not refused.
std::string without_secrets(const Node& node, const CommandView& command);

}  // namespace nearkey
