#include "nearkey/upstream/source_proofs.h"

#include "nearkey/upstream/node_connections.h"
#include "nearkey/upstream/own_question.h"
#include "nearkey/upstream/sources.h"

#include <algorithm>
#include <utility>

namespace nearkey {

void SourceProofs::ask() {
    started_ms_ = Loop::boot_ms();
    is_asked_again_ = false;
    if (is_over_) return;
    context_.watch();
    ++context_.metrics.near_cache_proofs_total;
    // The seed of a cluster has none.
    Connection* const receiver = connections_.receiver();
    if (receiver != nullptr && receiver->is_ready()) ask(*receiver);
    connections_.shared().for_each([this](Connection& connection) {
        if (Sources::are_reads_tracked(connection)) ask(connection);
    });
}

// Sent without a deadline: end_late() ends a late one.
void SourceProofs::ask(Connection& connection) {
    const auto is_it = [&](const Asked& asked) { return asked.connection == &connection; };
    // A connection that the server keeps waiting while it answers others will not answer soon.
    if (connection.in_flight().is_passed() || std::any_of(asked_.begin(), asked_.end(), is_it)) {
        sources_.suspend(connection);
        return;
    }
    owe();
    asked_.push_back({&connection, ++last_ticket_, false});
    connection.send({kPing, this, last_ticket_, RequestKind::Blocking});
}

void SourceProofs::note_answer(uint32_t ticket) {
    const auto found = std::find_if(asked_.begin(), asked_.end(), [ticket](const Asked& asked) {
        return asked.ticket == ticket;
    });
    const bool is_late = found->is_late;
    asked_.erase(found);
    if (!is_late) on_answer(round());
}

bool SourceProofs::ask_again() {
    Connection* const receiver = connections_.receiver();
    const bool is_due = sources_.is_broadcast() && !is_over_ && receiver != nullptr &&
                        receiver->is_ready() && !std::exchange(is_asked_again_, true);
    if (!is_due) return false;
    ask(*receiver);
    return is_under_way();
}

void SourceProofs::end_late() {
    if (!is_under_way()) return;
    const bool is_over = Loop::boot_ms() >= started_ms_ + patience_ms_;
    const uint32_t ending = round();
    size_t given_up = 0;
    for (Asked& asked : asked_) {
        if (asked.is_late || !(is_over || asked.connection->in_flight().is_passed())) continue;
        asked.is_late = true;
        ++given_up;
        ++context_.metrics.near_cache_proofs_late_total;
        sources_.suspend(*asked.connection);
    }
    for (; given_up > 0; --given_up)
        on_answer(ending);
}

void SourceProofs::shrink() {
    ProofRounds::shrink();
    asked_.shrink_to_fit();
}

}  // namespace nearkey
