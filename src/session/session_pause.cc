// Pauses: no input is run while there is a reason (pause.h), and most of the time none is read.
#include "nearkey/session/session.h"

namespace nearkey {

void Session::pause(Pause reason, Count* counter) {
    if ((paused_ & reason) != 0) return;
    if (counter != nullptr) ++*counter;
    paused_ |= reason;
    update_reading();
}

// A client is not read while what it waits for comes without it. One that may do nothing else until
// it is read is, and what it sends is kept. Who leaves while waiting in a blocking command must be
// noticed at once, too.
void Session::update_reading() {
    unsigned read_on = kOutput;
    if (tunnel_ != nullptr) read_on |= kLease;
    const bool may_block = lease_blocks_ || (tunnel_ != nullptr && tunnel_->is_left_to_server());
    if (may_block) read_on = ~unsigned{kMemory};
    const bool is_over = ended_ || (input_over_ && !may_block);
    if (is_over || (paused_ & ~read_on) != 0) {
        stream_->pause_reading();
    } else {
        stream_->resume_reading();
    }
}

void Session::unpause(uint8_t reasons) {
    if ((paused_ & reasons) == 0) return;
    paused_ &= static_cast<uint8_t>(~reasons);
    if (paused_ == 0) {
        paused_ = kYield;  // Until resume(): what waits is still to be run, though no more comes.
        resume_hook_.defer();
    } else {
        update_reading();
    }
}

}  // namespace nearkey
