#include "nearkey/upstream/shared_proofs.h"

#include "nearkey/base/sabotage.h"

#include <utility>

namespace nearkey {

SharedProofs::~SharedProofs() {
    own_->stop_waiting(*this);
    for (const Asked& asked : asked_)
        own_->stop_waiting(asked);
}

void SharedProofs::use(ProofRounds& own) {
    ProofRounds& former = *std::exchange(own_, &own);
    former.stop_waiting(*this);
    for (const Asked& asked : asked_)
        former.stop_waiting(asked);
    if (is_own_asked_) own_->prove(*this);
    // One that is answered at once is gone.
    for (auto next = asked_.begin(); next != asked_.end();)
        own_->prove(*next++);
}

void SharedProofs::ask() {
    for (SharedProofs* other : others_) {
        if (is_broken(Rule::OtherLoops)) break;
        owe();
        other->mailbox_.post([other, this, number = round()] { other->answer(*this, number); });
    }
    owe();
    is_own_asked_ = true;
    own_->prove(*this);
}

// Runs on the loop that is asked.
void SharedProofs::answer(SharedProofs& asker, uint32_t number) {
    own_->prove(asked_.emplace_back(*this, asker, number));
}

// This destroys the object.
void SharedProofs::Asked::on_proven() {
    asker_.mailbox_.post([&to = asker_, number = round_] { to.on_answer(number); });
    here_.asked_.remove_if([this](const Asked& each) { return &each == this; });
}

}  // namespace nearkey
