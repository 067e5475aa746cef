// The reasons why a session runs no input. It goes on when none is left, and each has an end that
// does not need the client; where it may need it, the client is read on meanwhile, as far as
// limits.input_per_client_max: either it gets on, or it is closed with a reason.
//
//   kOutput     The client takes its replies; it may write all before it reads. Read on.
//   kInFlight   Replies come, or upstream.request_timeout_ms is over. Behind a blocking command,
//               which another client may have to answer: read on.
//   kUntilIdle  The same.
//   kMemory     ClientServer sees memory freed, in the end by closing the largest holder.
//   kYield      The loop turns.
//   kLease      A lease is given back, or upstream.queue_timeout_ms is over. Our own question on it
//               is answered, or times out. In a tunnel, where the reply to RESET stands behind
//               bytes that the client must take first: read on.
//   kFill       Another client's read ends, as each does. A proof comes, or unproven replies are
//               not served any more (SourceProofs).
//   kServer     A tunnel's server takes the bytes sent, or is lost.
#pragma once

#include "nearkey/base/count.h"
#include "nearkey/loop/loop.h"

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

// Events that pauses tell their session.
class PauseEvents {
public:
    // Deferred: waiting input may be run again.
    virtual void resume() = 0;
    // Reading from the client may have to start or stop now.
    virtual void update_reading() = 0;

protected:
    ~PauseEvents() = default;
};

class Pauses {
public:
    Pauses(Loop& loop, PauseEvents& events) : events_(events), resume_hook_(loop, events) {}

    // The counter, if there is one, counts what was not paused for this already.
    void pause(PauseReason::Bits reason, Count* counter);
    // REQUIRES: any of PauseReason's bits.
    void unpause(unsigned reasons) {
        if ((reasons_ & reasons) != 0) take_away(reasons);
    }
    // Runs nothing before resume(), in this turn.
    void yield();
    // Called by resume().
    void end_yield() { reasons_ &= ~unsigned{PauseReason::kYield}; }
    void end_all() { reasons_ = 0; }

    bool any() const { return reasons_ != 0; }
    bool any_of(unsigned reasons) const { return (reasons_ & reasons) != 0; }

private:
    void take_away(unsigned reasons);

    struct ResumeHook final : Deferred {
        ResumeHook(Loop& loop, PauseEvents& owner) : Deferred(loop, Phase::Resume), events(owner) {}
        void before_sleep() override { events.resume(); }
        PauseEvents& events;
    };

    PauseEvents& events_;
    ResumeHook resume_hook_;
    unsigned reasons_ = 0;
};

}  // namespace nearkey
