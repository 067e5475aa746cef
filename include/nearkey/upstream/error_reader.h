// Looks at each error before its receiver gets it: the server may say that it is no primary any
// more, or, in a cluster, that it did not run the command.
// Owned by a Connection, which is lost where the server has become a replica. The one rule: only
// words that came over a shared connection are believed, for scripts, which may say anything, never
// do.
#pragma once

#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/pipeline.h"

#include <string>
#include <string_view>

namespace nearkey {

class ErrorReader {
public:
    // All outlive it.
    ErrorReader(ConnectionContext& context, Pipeline& pipeline, Connection& connection)
        : context_(context), pipeline_(pipeline), connection_(connection) {}

    // The socket is connected. `is_shared`: -REDIRECT can be asked for (CLIENT CAPA redirect).
    void begin(bool is_shared) { is_shared_ = is_shared; }
    void end();
    // A piece of the head's reply, which is an error. It is held until it is known what it is.
    // False: the connection is lost.
    [[nodiscard]] bool take(std::string_view bytes, bool is_end);
    // The same in a tunnel, whose bytes go on in any case.
    void note(std::string_view bytes);

private:
    void take_in_cluster(std::string_view bytes, bool is_end);
    void leave_replica();

    ConnectionContext& context_;
    Pipeline& pipeline_;
    Connection& connection_;
    bool is_shared_ = false;
    std::string begin_;  // what has come of an error that is held
};

}  // namespace nearkey
