// Proofs over all nodes that store into one near cache, each on an event loop of its own.
// A round asks the node here and, by their mailboxes, those of the others for a proof of their own
// connections. Such a proof waits for no other loop, so no two loops can wait for each other.
#pragma once

#include "nearkey/loop/mailbox.h"
#include "nearkey/upstream/proof_rounds.h"

#include <list>
#include <vector>

namespace nearkey {

class SharedProofs final : public ProofRounds, private ProofWaiter {
public:
    // `own` are those of the node of this loop, `mailbox` is the loop's. All outlive it.
    SharedProofs(Mailbox& mailbox, ProofRounds& own) : mailbox_(mailbox), own_(&own) {}
    // Those of another node are asked in their place. What waits for the former waits for these.
    void use(ProofRounds& own);
    ~SharedProofs();
    // Called before any of the loops runs. All outlive it.
    void add_other(SharedProofs& other) { others_.push_back(&other); }

private:
    // Another loop's round that waits for ours.
    struct Asked final : ProofWaiter {
        Asked(SharedProofs& here, SharedProofs& asker, uint32_t number)
            : here_(here), asker_(asker), round_(number) {}
        void on_proven() override;

    private:
        SharedProofs& here_;
        SharedProofs& asker_;
        const uint32_t round_;
    };

    // ProofRounds
    void ask() override;
    bool ask_again() override { return false; }
    // ProofWaiter: the node here has proven its part.
    void on_proven() override {
        is_own_asked_ = false;
        on_answer(round());
    }

    void answer(SharedProofs& asker, uint32_t number);

    Mailbox& mailbox_;
    ProofRounds* own_;
    bool is_own_asked_ = false;
    std::vector<SharedProofs*> others_;
    std::list<Asked> asked_;
};

}  // namespace nearkey
