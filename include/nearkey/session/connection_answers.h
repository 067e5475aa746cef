// Answers, before a cluster, to commands that need one server or are about the client's connection:
// it has none there, and is nearkey's user at all nodes. What is true without one is answered as a
// server would; the rest is refused in words. Made for one command; it has no state of its own.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/own_answers.h"
#include "nearkey/session/transaction.h"
#include "nearkey/session/transaction_route.h"

#include <string_view>

namespace nearkey {

class ConnectionAnswers {
public:
    ConnectionAnswers(Desk& desk, Lease& lease, Transaction& transaction, TransactionRoute route,
                      OwnAnswers own)
        : desk_(desk), lease_(lease), transaction_(transaction), route_(route), own_(own) {}

    // REQUIRES: is_for_one_server().
    Executed execute(const Call& call);

private:
    // The client's word, AUTH or HELLO, is judged by a server. Nobody else than nearkey's user can
    // be meant, for the connections are of that one.
    Executed authenticate(const Call& call);
    Executed answer(const Call& call, std::string_view reply);
    // The answer to ON and OFF; empty: it can't be.
    Executed answer_switch(const Call& call, std::string_view on, std::string_view off);
    Executed refuse(const Call& call);

    Desk& desk_;
    Lease& lease_;
    Transaction& transaction_;
    TransactionRoute route_;
    OwnAnswers own_;
};

}  // namespace nearkey
