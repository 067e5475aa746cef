#include "nearkey/session/pauses.h"

namespace nearkey {

void Pauses::pause(PauseReason::Bits reason, Count* counter) {
    if ((reasons_ & reason) != 0) return;
    if (counter != nullptr) ++*counter;
    reasons_ |= reason;
    events_.update_reading();
}

void Pauses::take_away(unsigned reasons) {
    reasons_ &= ~reasons;
    if (reasons_ == 0) {
        yield();  // Waiting input must still be run, though no more comes.
    } else {
        events_.update_reading();
    }
}

void Pauses::yield() {
    reasons_ |= PauseReason::kYield;
    resume_hook_.defer();
}

}  // namespace nearkey
