#include "nearkey/upstream/shared_proofs.h"

#include "nearkey/base/sabotage.h"

namespace nearkey {

SharedProofs::~SharedProofs() {
    own_.stop_waiting(*this);
    for (const auto& [waiter, owned] : asked_)
        own_.stop_waiting(*waiter);
}

void SharedProofs::ask() {
    for (SharedProofs* other : others_) {
        if (is_broken(Rule::OtherLoops)) break;
        owe();
        other->mailbox_.post([other, this, number = round()] { other->answer(*this, number); });
    }
    owe();
    own_.prove(*this);
}

// On the loop that is asked.
void SharedProofs::answer(SharedProofs& asker, uint32_t number) {
    auto owned = std::make_unique<Asked>(*this, asker, number);
    Asked* waiter = owned.get();
    asked_.emplace(waiter, std::move(owned));
    own_.prove(*waiter);
}

// It is gone at the end of this.
void SharedProofs::Asked::on_proven() {
    asker_.mailbox_.post([&to = asker_, number = round_] { to.on_answer(number); });
    here_.asked_.erase(this);
}

}  // namespace nearkey
