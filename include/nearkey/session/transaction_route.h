// The ways of a transaction: one that has arrived whole travels as one piece over the shared
// connection; any other has a lease until the server says that nothing is left of it.
// Made for one command; it has no state of its own.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/input.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/shared_route.h"
#include "nearkey/session/transaction.h"

#include <optional>
#include <string>
#include <string_view>

namespace nearkey {

class TransactionRoute {
public:
    TransactionRoute(Desk& desk, Lease& lease, Transaction& transaction)
        : desk_(desk), lease_(lease), transaction_(transaction) {}

    // Sends all from MULTI to EXEC or DISCARD. Nothing: `rest`, which begins with MULTI, does not
    // hold all of it, or holds what must not go over a shared connection.
    std::optional<Executed> forward_whole(const Call& call, std::string_view rest,
                                          SharedRoute& shared, Input& input);
    Executed forward_step(const Call& call);
    // In a transaction the server itself must refuse a command that the rules refuse.
    Executed forward_refused(const Call& call);
    // The reply to a step is whole, in the output.
    void finish_step();

    // The first reply is an error that came over the lease: a redirect is not followed, but put in
    // words.
    void reword_redirect(uint32_t ticket);

    // The server was not told of MULTI yet. Nothing: it knows now, and that EXEC must fail if
    // something of it was refused.
    std::optional<Executed> begin_owed(const Call& call);
    // The answer to a command that failed in a transaction; if that is lost, the client is closed.
    std::string fail(uint32_t ticket, std::string_view error);
    // The client's next command would run outside of its transaction, which must not be. As if its
    // own connection were lost, the client is closed.
    void lose();

private:
    struct Whole {
        size_t size = 0;  // bytes of the input; 0: it is not whole
        uint32_t commands = 0;
        bool reads = false;
    };

    Whole encode_whole(std::string_view rest);
    bool has_no_node(const Call& call) const;
    bool is_surely_queued(const Call& call) const;
    bool keep(const Call& call);
    std::optional<Executed> judge(const Call& call);
    std::string fail_owed(Special what, std::string_view error);

    Desk& desk_;
    Lease& lease_;
    Transaction& transaction_;
};

}  // namespace nearkey
