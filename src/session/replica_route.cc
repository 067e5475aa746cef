#include "nearkey/session/replica_route.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/dispatch/placement.h"

namespace nearkey {

namespace {
ReplicaRefusal refusal_of(ReplicaHindrance hindrance) {
    switch (hindrance) {
        case ReplicaHindrance::None:
            return ReplicaRefusal::None;
        case ReplicaHindrance::NoReplica:
            return ReplicaRefusal::NoReplica;
        case ReplicaHindrance::Away:
            return ReplicaRefusal::Away;
        case ReplicaHindrance::Unproven:
            return ReplicaRefusal::Unproven;
        case ReplicaHindrance::OwnWrite:
            return ReplicaRefusal::OwnWrite;
    }
    return ReplicaRefusal::NoReplica;
}

void count(ReplicaRefusal refusal, Metrics& metrics) {
    switch (refusal) {
        case ReplicaRefusal::Busy:
        case ReplicaRefusal::OwnWrite:
            ++metrics.cluster_reads_own_write_total;
            break;
        case ReplicaRefusal::Unproven:
            ++metrics.cluster_reads_unproven_total;
            break;
        case ReplicaRefusal::NoReplica:
        case ReplicaRefusal::Away:
            ++metrics.cluster_reads_away_total;
            break;
        default:
            break;
    }
}
}  // namespace

std::string_view in_words(ReplicaRefusal refusal) {
    switch (refusal) {
        case ReplicaRefusal::None:
            return "it is known to be up to date";
        case ReplicaRefusal::NotAsked:
            return "the option read_from of its listener names the primary";
        case ReplicaRefusal::NoRead:
            return "it is no read that a replica answers as its primary would";
        case ReplicaRefusal::Stored:
            return "its reply may be stored, and only those of primaries are";
        case ReplicaRefusal::Parts:
            return "it runs in parts";
        case ReplicaRefusal::Busy:
            return "the client is owed the reply to a write";
        case ReplicaRefusal::NoReplica:
            return "the slot has no replica";
        case ReplicaRefusal::Away:
            return "no replica of the slot can be read from";
        case ReplicaRefusal::Unproven:
            return "no replica is known to be within cluster.replica_lag_max_ms";
        case ReplicaRefusal::OwnWrite:
            return "this nearkey has written to the slot since the replica was up to date";
    }
    return "";
}

ReplicaRoute::Choice ReplicaRoute::choose(const Call& call) {
    const Plan& plan = call.plan;
    Cluster& cluster = *desk_.context.cluster;
    if (!desk_.terms.reads_replicas) return {ReplicaRefusal::NotAsked};
    // Its listener came with a reload.
    if (cluster.replicas == nullptr) return {ReplicaRefusal::NoReplica};
    const bool is_shared = plan.way == Way::Shared || plan.way == Way::Apart;
    const bool is_read = is_shared && call.is_sound() && call.spec()->may_ask_replica &&
                         plan.kind == RequestKind::Read &&
                         call.command.raw().size() <= desk_.context.node.options().retry_bytes_max;
    if (!is_read) return {ReplicaRefusal::NoRead};
    if (plan.may_be_stored()) return {ReplicaRefusal::Stored};
    const Placement placement = place(call.spec(), call.command, desk_.context.ledgers.keys);
    if (placement.where != Placement::Where::Slot) return {ReplicaRefusal::NoRead};
    const uint16_t slot = placement.slot;
    const bool is_writing = desk_.ledger.is_writing() && !is_broken(Rule::ReplicaOwnWrite);
    if (is_writing || !desk_.is_settled(slot)) return {ReplicaRefusal::Busy};
    Replicas::Wish wish{.primary = cluster.owner(slot).coherence().number(),
                        .slot = slot,
                        .protocol = desk_.client.protocol,
                        .session = desk_.id};
    if (desk_.is_owed_by_replica(slot)) wish.only = replicas_[slot % kBits];
    const Replicas::Choice replica = cluster.replicas->choose(wish);
    return {refusal_of(replica.hindrance), slot, replica};
}

std::optional<Executed> ReplicaRoute::forward(const Call& call) {
    const Choice choice = choose(call);
    if (choice.refusal != ReplicaRefusal::None) {
        count(choice.refusal, desk_.context.metrics);
        return std::nullopt;
    }
    replicas_[choice.slot % kBits] = choice.replica.number;
    desk_.note_replica_owes(choice.slot);
    desk_.count_forwarded(call.spec());
    const uint32_t ticket = desk_.replies.open(1);
    desk_.ledger.begin(call.plan, call.command, ticket,
                       {*choice.replica.node, *choice.replica.connection, true});
    desk_.context.cluster->replicas->send(
        choice.replica,
        {desk_.canonical(call.command), &desk_.receiver(), ticket, RequestKind::Read, 1, 0,
         desk_.timing(call, RequestKind::Read)},
        choice.slot);
    return Executed::Yes;
}

}  // namespace nearkey
