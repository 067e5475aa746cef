// Why a session runs no input. It goes on when no reason is left, and each reason has an end that
// does not need the client; where it may need it, the client is read on meanwhile, as far as
// limits.input_per_client_max: either it gets on, or it is closed with a reason.
//
//   kOutput     The client takes its replies; it may write all before it reads. Read on.
//   kInFlight   Replies come, or upstream.request_timeout_ms is over. Behind a blocking command,
//               which another client may have to answer: read on.
//   kUntilIdle  The same.
//   kMemory     ClientServer sees memory freed, in the end by closing the largest holder.
//   kYield      The loop turns.
//   kLease      A lease is given back, or upstream.queue_timeout_ms is over. What we have asked on
//               it is answered, or times out. In a tunnel, where the reply to RESET stands behind
//               what the client has to take first: read on.
//   kFill       Another client's read ends, as each does. A proof comes, or what is not proven is
//               not served any more (ConnectionPool::SourceProofs).
//   kServer     A tunnel's server takes what was sent, or is lost.
#pragma once

#include <cstdint>

namespace nearkey {

struct PauseReason {
    enum Bits : uint8_t {
        kOutput = 1,
        kInFlight = 2,
        kUntilIdle = 4,
        kMemory = 8,
        kYield = 16,
        kLease = 32,
        kFill = 64,
        kServer = 128,
    };
};

}  // namespace nearkey
