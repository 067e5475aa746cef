// Rounds of questions, each of which proves something once all who were asked have answered.
// A round proves what was before it began: waiters that come meanwhile wait for the next.
#pragma once

#include "nearkey/base/check.h"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nearkey {

// Waits for ProofRounds::prove(). Each prove() is answered by one on_proven(), unless the waiter
// calls stop_waiting() before.
class ProofWaiter {
public:
    virtual void on_proven() = 0;

protected:
    ~ProofWaiter() = default;
};

class ProofRounds {
public:
    // Tells the waiter when a round has ended that began after this call.
    void prove(ProofWaiter& waiter) {
        next_waiters_.push_back(&waiter);
        if (!is_under_way()) start();
    }
    void stop_waiting(const ProofWaiter& waiter) {
        std::erase(waiters_, &waiter);
        std::erase(next_waiters_, &waiter);
    }
    // One of those asked in that round has answered, or will not.
    void on_answer(uint32_t round) {
        if (round != round_ || owed_ == 0 || --owed_ > 0) return;
        if (!ask_again()) end();
    }
    // Ends the round: those that have not answered prove nothing.
    void end() {
        owed_ = 0;
        // A waiter that is told may ask for the next round at once, and that may end here as well.
        std::vector<ProofWaiter*> told = std::exchange(spare_, {});
        told.swap(waiters_);
        for (ProofWaiter* waiter : told)
            waiter->on_proven();
        told.clear();
        spare_ = std::move(told);
        if (!next_waiters_.empty() && !is_under_way()) start();
    }
    void shrink() {
        for (std::vector<ProofWaiter*>* waiters : {&waiters_, &next_waiters_, &spare_})
            waiters->shrink_to_fit();
    }
    bool is_under_way() const { return owed_ > 0; }

protected:
    ~ProofRounds() = default;
    uint32_t round() const { return round_; }
    // Called with each question: it will be answered.
    void owe() { ++owed_; }

private:
    // Asks all that are to be asked, each with round().
    virtual void ask() = 0;
    // All have answered. True: some were asked once more.
    virtual bool ask_again() = 0;

    void start() {
        ++round_;
        NEARKEY_CHECK(waiters_.empty());
        waiters_.swap(next_waiters_);
        owed_ = 1;
        ask();
        on_answer(round_);
    }

    uint32_t round_ = 0;
    size_t owed_ = 0;
    std::vector<ProofWaiter*> waiters_;
    std::vector<ProofWaiter*> next_waiters_;
    std::vector<ProofWaiter*> spare_;  // empty; its memory is for the next round
};

}  // namespace nearkey
