// Proofs over several event loops, of which one turns out to lead to a cluster in the middle.
#include "nearkey/upstream/shared_proofs.h"

#include "../run_until.h"

#include <doctest/doctest.h>

namespace nearkey::shared_proofs_test {
namespace {

// Asks one, which answers when a test says so.
struct ManualRounds final : ProofRounds {
    void answer() { on_answer(round()); }
    int asked = 0;

private:
    void ask() override {
        owe();
        ++asked;
    }
    bool ask_again() override { return false; }
};

struct Proof final : ProofWaiter {
    void on_proven() override { ++told; }
    int told = 0;
};

}  // namespace

TEST_CASE("shared proofs: a round goes on with the node that takes the place of the one it asked") {
    Loop loop;
    Mailbox mailbox(loop);
    ManualRounds node;
    ManualRounds cluster;
    SharedProofs proofs(mailbox, node);
    Proof proof;
    proofs.prove(proof);
    CHECK(node.asked == 1);
    proofs.use(cluster);
    CHECK(cluster.asked == 1);
    node.answer();
    CHECK(proof.told == 0);
    cluster.answer();
    CHECK(proof.told == 1);
    // No round is under way.
    proofs.use(node);
    CHECK(node.asked == 1);
}

TEST_CASE("shared proofs: what another loop waits for goes on there, too") {
    Loop loop;
    Mailbox here_mailbox(loop);
    Mailbox there_mailbox(loop);
    ManualRounds here_node;
    ManualRounds there_node;
    ManualRounds there_cluster;
    SharedProofs here(here_mailbox, here_node);
    SharedProofs there(there_mailbox, there_node);
    here.add_other(there);
    Proof proof;
    here.prove(proof);
    here_node.answer();
    REQUIRE(run_until(loop, [&] { return there_node.asked == 1; }));
    there.use(there_cluster);
    CHECK(there_cluster.asked == 1);
    there_node.answer();
    CHECK(proof.told == 0);
    there_cluster.answer();
    CHECK(run_until(loop, [&] { return proof.told == 1; }));
}

}  // namespace nearkey::shared_proofs_test
