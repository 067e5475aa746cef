#include "nearkey/upstream/proof_rounds.h"

#include "nearkey/base/check.h"

#include <utility>

namespace nearkey {

void ProofRounds::prove(ProofWaiter& waiter) {
    next_waiters_.push_back(&waiter);
    if (!is_under_way()) start();
}

void ProofRounds::stop_waiting(const ProofWaiter& waiter) {
    std::erase(waiters_, &waiter);
    std::erase(next_waiters_, &waiter);
}

void ProofRounds::shrink() {
    for (std::vector<ProofWaiter*>* waiters : {&waiters_, &next_waiters_, &spare_})
        waiters->shrink_to_fit();
}

void ProofRounds::start() {
    ++round_;
    CHECK(waiters_.empty());
    waiters_.swap(next_waiters_);
    owed_ = 1;
    ask();
    on_answer(round_);
}

void ProofRounds::on_answer(uint32_t round) {
    if (round != round_ || owed_ == 0 || --owed_ > 0) return;
    if (!ask_again()) end();
}

void ProofRounds::end() {
    owed_ = 0;
    // Who is told may ask for the next round at once, and that may end here as well.
    std::vector<ProofWaiter*> told = std::exchange(spare_, {});
    told.swap(waiters_);
    for (ProofWaiter* waiter : told)
        waiter->on_proven();
    told.clear();
    spare_ = std::move(told);
    if (!next_waiters_.empty() && !is_under_way()) start();
}

}  // namespace nearkey
