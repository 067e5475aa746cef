// The treatment of a request whose connection is lost or held up, and its time limit. Decided with
// the rest of a command's plan (plan.h), read by the layer that sends it (upstream/).
#pragma once

#include <cstdint>

namespace nearkey {

enum class RequestKind : uint8_t {
    Read,      // may be sent again if its connection is lost or held up
    Write,     // is never sent twice
    Blocking,  // never sent twice, and waits as long as the server lets it
    Own,       // the same, of a connection's own; nobody misses its reply
};

}  // namespace nearkey
