// Rounds of questions, each of which proves something once all who were asked have answered.
// What is proven is what was before the round began: whoever comes meanwhile waits for the next.
#pragma once

#include "nearkey/upstream/proof_waiter.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nearkey {

class ProofRounds {
public:
    // Tells the waiter when a round has ended that began after this call.
    void prove(ProofWaiter& waiter);
    void stop_waiting(const ProofWaiter& waiter);
    // One of those who were asked in that round has answered, or will not.
    void on_answer(uint32_t round);
    // Whoever has not answered proves nothing.
    void end();
    void shrink();
    bool is_under_way() const { return owed_ > 0; }

protected:
    ~ProofRounds() = default;
    uint32_t round() const { return round_; }
    // With each question: it will be answered.
    void owe() { ++owed_; }

private:
    // Asks all that are to be asked, each with round().
    virtual void ask() = 0;
    // All have answered: whether some were asked once more.
    virtual bool ask_again() = 0;

    void start();

    uint32_t round_ = 0;
    size_t owed_ = 0;
    std::vector<ProofWaiter*> waiters_;
    std::vector<ProofWaiter*> next_waiters_;
    std::vector<ProofWaiter*> spare_;  // empty; its memory is for the next round
};

}  // namespace nearkey
