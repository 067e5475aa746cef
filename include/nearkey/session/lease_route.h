// The ways over a connection of the session's own, for the time of a command.
// Made for one command; it has no state of its own.
#pragma once

#include "nearkey/session/blocked_wait.h"
#include "nearkey/session/desk.h"
#include "nearkey/session/followed_commands.h"
#include "nearkey/session/input.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/shared_route.h"
#include "nearkey/session/transaction.h"

#include <memory>
#include <string_view>

namespace nearkey {

class LeaseRoute {
public:
    // Each is made when the first command needs it.
    struct Kept {
        std::unique_ptr<BlockedWait> blocked;
        std::unique_ptr<FollowedCommands> followed;
    };
    LeaseRoute(Desk& desk, Lease& lease, const Transaction& transaction, Kept& kept)
        : desk_(desk), lease_(lease), transaction_(transaction), kept_(kept) {}

    Executed forward(const Call& call, RequestKind kind);
    // A script, or text that a server compiles: it may put line ends into a line of text, so that
    // it reads as several replies, which must not reach the next client on this connection.
    Executed forward_script(const Call& call);
    // A command that may change its connection goes alone, and the connection is used again only if
    // the command was refused.
    Executed forward_unproven(const Call& call);
    // WAIT, WAITAOF.
    Executed forward_wait(const Call& call);
    // A large command, or one behind a large reply, must hold up nobody. It gets a connection of
    // its own that is there at once; where none is, it goes as every other command does, and one is
    // connected for the next.
    Executed forward_apart(const Call& call, SharedRoute& shared, Input& input);

    // A command that is propagated, so it moves its connection's replication offset past every
    // write before it; nobody hears it: no pattern matches it.
    static constexpr std::string_view kMark =
        "*3\r\n$8\r\nSPUBLISH\r\n$12\r\nnearkey:wait\r\n$0\r\n\r\n";

private:
    bool may_wait_on(const Call& call);
    bool may_follow(const Call& call);
    Executed send_large(const Call& call, Input& input);

    Desk& desk_;
    Lease& lease_;
    const Transaction& transaction_;
    Kept& kept_;
};

}  // namespace nearkey
