#include "nearkey/session/transaction.h"

namespace nearkey {

bool Transaction::may_be_in_multi() const {
    bool result = is_queuing_;
    for (size_t i = 0; i < steps_.size(); ++i) {
        const Special what = steps_[i].what;
        if (what == Special::Multi) result = true;
        if (what == Special::Exec || what == Special::Discard || what == Special::RefusedExec) {
            result = false;
        }
    }
    return result;
}

void Transaction::finish_step(std::string_view reply, bool is_error) {
    switch (step()) {
        case Special::Multi:
            is_queuing_ |= !is_error;
            break;
        case Special::Watch:
            is_watching_ |= !is_error;
            break;
        case Special::Exec:
            // Whatever its error, nothing is left; but without MULTI it ends no WATCH.
            is_queuing_ = false;
            is_watching_ &= is_error && (reply.empty() || reply.starts_with("-ERR EXEC without"));
            break;
        case Special::Discard:
        case Special::RefusedExec:
            if (!is_error) is_queuing_ = is_watching_ = false;
            break;
        case Special::Unwatch:
            if (!is_error && !is_queuing_) is_watching_ = false;
            break;
        default:
            break;
    }
    steps_.pop_front();
}

bool Transaction::keep(std::string_view command, Route route, Special special) {
    constexpr size_t kKeptMax = size_t{64} << 10;
    if (kept_.size() + command.size() > kKeptMax) return false;
    kept_ += command;
    ++kept_commands_;
    keeps_scripts_ |= special == Special::Script;
    keeps_unproven_ |= route == Route::Unproven;
    return true;
}

void Transaction::lose() {
    leave();
    steps_.clear();
}

}  // namespace nearkey
