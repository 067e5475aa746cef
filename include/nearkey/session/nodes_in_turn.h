// Commands for every node of a cluster whose replies need a connection of their own, or that wait:
// they go to one node after the other, over the session's lease.
// Owned by Conversation. The client's command stays in its input meanwhile, and is tried again with
// each answer; nothing else of this client's is run.
// The one rule: the first error ends it, and is the client's answer.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class NodesInTurn {
public:
    NodesInTurn(Desk& desk, Lease& lease) : desk_(desk), lease_(lease) {}

    static bool takes(const Call& call);
    // REQUIRES: takes(), and no transaction.
    Executed forward(const Call& call);
    // The command that waited is over. The lease forgets what was asked for it.
    void forget_waiting() { has_begun_ = false; }

private:
    Node* next_node();
    std::string bytes_for(const Call& call) const;
    Executed ask(const Call& call, Node& node);
    bool take_mark(const Call& call);
    bool take_reply(const Call& call);
    void note_script(const Call& call);
    void answer(const Call& call);
    void finish(const Call& call, std::string_view error);

    Desk& desk_;
    Lease& lease_;
    bool has_begun_ = false;
    bool is_marked_ = false;  // this node counts the session's writes
    uint64_t begun_ms_ = 0;
    std::vector<std::string> asked_;  // addresses of the nodes
    std::vector<std::string> ids_;    // theirs
    std::vector<std::string> replies_;
};

}  // namespace nearkey
