// Decides when connections dial: all at once while the server is known to answer. Once an attempt
// has failed one connection at a time, the scout, proves the server, with backoff; the others
// follow.
// Owned by Node. It holds no connection that is closed.
#pragma once

#include "nearkey/loop/loop.h"
#include "nearkey/upstream/backoff.h"
#include "nearkey/upstream/options.h"

#include <cstdint>
#include <deque>

namespace nearkey {

class Connection;

class DialQueue final {
public:
    // `options` outlive it, and may change: apply_options().
    DialQueue(Loop& loop, const UpstreamOptions& options, uint64_t seed);

    void want(Connection& connection);
    void note_ready(const Connection& connection);
    // Its dial has failed: it is dialled again, if something needs it.
    void note_failed(Connection& connection);
    // The same for a connection that was ready.
    void note_lost(Connection& connection);
    void note_closed(const Connection& connection);
    // Nothing shows any more that the server answers.
    void note_absent() { is_proven_ = false; }
    // Another server is to be dialled.
    void restart();
    void apply_options();

private:
    void dial_next();
    void dial_again(Connection& connection, uint64_t delay_ms);

    const UpstreamOptions& options_;
    std::deque<Connection*> waiting_;
    Connection* scout_ = nullptr;  // null: none is out
    bool is_proven_ = false;
    Backoff backoff_;
    Timer timer_;
};

}  // namespace nearkey
