#include "nearkey/session/primary_wait.h"

namespace nearkey {

namespace {
// While another primary is awaited.
constexpr uint64_t kAskEveryMs = 100;
}  // namespace

bool PrimaryWait::pause_for_primary(const Node& node) {
    if (!node.target().has_sentinels()) return false;
    const uint64_t now_ms = loop_.now_ms();
    if (until_ms_ == 0) until_ms_ = now_ms + node.options().drain_timeout_ms;
    if (now_ms >= until_ms_) return false;
    timer_.start_once(kAskEveryMs);
    return true;
}

bool PrimaryWait::on_lease_settled(bool is_refused) {
    if (!is_waiting_for_lease_) return false;
    is_lease_refused_ = is_refused;
    timer_.start_once(0);
    return true;
}

bool PrimaryWait::take_refusal() {
    is_waiting_for_lease_ = false;
    return std::exchange(is_lease_refused_, false);
}

}  // namespace nearkey
