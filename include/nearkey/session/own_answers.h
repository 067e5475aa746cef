// Commands that nearkey answers itself, since their state is the session's: HELLO, SELECT, RESET,
// QUIT, CLIENT SETNAME ... Made for one command; it has no state of its own.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/shared_route.h"
#include "nearkey/session/transaction.h"

#include <string_view>

namespace nearkey {

class OwnAnswers {
public:
    OwnAnswers(Desk& desk, Lease& lease, SharedRoute& shared, Transaction& transaction)
        : desk_(desk), lease_(lease), shared_(shared), transaction_(transaction) {}

    // REQUIRES: its way is Local, and it is not NEARKEY.
    Executed execute(const Call& call);
    // The reply to the PING that stands for a SELECT is in the output, or will not come.
    void on_selected();
    void on_select_failed(std::string_view error);
    // After RESET.
    void forget_state();
    // Credentials in it are not looked at.
    Executed hello(const Call& call);
    // The client's id, as HELLO says it.
    static int64_t id_of(const Desk& desk);

private:
    void answer_hello(const CommandSpec* spec);
    Executed select(const Call& call);
    Executed reset(const CommandSpec* spec);
    void get_name(const CommandSpec* spec);
    void set_name(const CommandSpec* spec, std::string_view name);
    void set_info(const Call& call);

    Desk& desk_;
    Lease& lease_;
    SharedRoute& shared_;
    Transaction& transaction_;
};

}  // namespace nearkey
