#include "nearkey/session/nearkey_command.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/cache/segment.h"
#include "nearkey/dispatch/parts.h"
#include "nearkey/dispatch/placement.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include "nearkey/session/cached_reads.h"
#include "nearkey/session/replica_route.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nearkey {

namespace {

constexpr std::string_view kHelp[] = {
    "NEARKEY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHE (ON|OFF|CLEAR)",
    "    Answer this client's reads from the near cache, or not; drop all that is stored.",
    "EXPLAIN <command> [<arg> ...]",
    "    Tell which route a command takes, and why; of a read, what the near cache knows.",
    "HITS <number>",
    "    Tell that the next command stands for so many hits that the client had in shared memory.",
    "SHM",
    "    Get the shared memory of the near cache: a file descriptor comes with the reply.",
    "STATS",
    "    Return nearkey's own counters and gauges.",
    "TAG <id>",
    "    Mark this client's commands in the slow log and in warnings, until the next TAG or RESET.",
    "HELP",
    "    Print this help.",
};

std::string_view name_of(NearCache::Outcome outcome) {
    switch (outcome) {
        case NearCache::Outcome::Hit:
            return "hit";
        case NearCache::Outcome::Miss:
            return "miss";
        case NearCache::Outcome::Pending:
            return "pending";
        case NearCache::Outcome::Blocked:
            return "blocked";
        case NearCache::Outcome::Unproven:
            return "unproven";
    }
    return "";
}

std::string reason_of(const NearCache::Explanation& found) {
    if (found.outcome == NearCache::Outcome::Hit) return "stored, and known to be true";
    if (found.outcome == NearCache::Outcome::Unproven) {
        return "stored, but Valkey has proven nothing for near_cache.max_staleness_ms";
    }
    if (found.refusal == NearCache::Refusal::Keys) {
        return "near_cache.keys or skip_keys leave this key out";
    }
    if (found.refusal == NearCache::Refusal::Thrash) {
        return fmt::format("its key family was invalidated more often than hit: off for {} ms",
                           found.refused_ms);
    }
    if (found.outcome == NearCache::Outcome::Blocked) return "a write is in flight";
    if (found.outcome == NearCache::Outcome::Pending) return "another client is reading it";
    return "not stored";
}

// The requests that a command is made of, before a cluster.
size_t count_parts(const Call& call, Cluster& cluster) {
    if (!call.is_sound()) return 1;
    switch (call.spec()->spread) {
        case Spread::EachSlot:
            return std::max<size_t>(Parts(*call.spec(), call.command).count(), 1);
        case Spread::EachNode:
        case Spread::Scan:
            return cluster.primaries.nodes().size();
        case Spread::OneNode:
        case Spread::Nowhere:
            break;
    }
    return 1;
}

}  // namespace

// Names and values of a map, as they are added.
struct NearkeyCommand::Pairs {
    void add(std::string_view name, std::string_view value) {
        append_bulk(bytes, name);
        append_bulk(bytes, value);
        ++count;
    }
    void add(std::string_view name, uint64_t value) {
        append_bulk(bytes, name);
        append_integer(bytes, static_cast<int64_t>(value));
        ++count;
    }

    void add(std::string_view name, const std::vector<std::string_view>& values) {
        append_bulk(bytes, name);
        append_array_header(bytes, values.size());
        for (const std::string_view value : values)
            append_bulk(bytes, value);
        ++count;
    }

    std::string bytes;
    size_t count = 0;
};

Executed NearkeyCommand::execute(const Call& call) {
    const CommandView& command = call.command;
    SessionContext& context = desk_.context;
    std::string reply;
    const std::string_view what = command.size() > 1 ? command[1] : std::string_view{};
    if (equals_ignoring_case(what, "HELP") && command.size() == 2) {
        append_array_header(reply, std::size(kHelp));
        for (const std::string_view line : kHelp)
            append_bulk(reply, line);
    } else if (equals_ignoring_case(what, "STATS") && command.size() == 2) {
        Pairs pairs;
        MetricsGroup own;
        own.add(context.metrics);
        const Metrics total = (context.all == nullptr ? own : *context.all).total();
        for_each_stat(total, [&](std::string_view name, std::string_view value) {
            // A number of seconds is no integer.
            const auto number = parse_integer(value);
            number ? pairs.add(name, static_cast<uint64_t>(*number)) : pairs.add(name, value);
        });
        append_map_header(reply, pairs.count, desk_.client.protocol);
        reply += pairs.bytes;
    } else if (equals_ignoring_case(what, "CACHE") && command.size() == 3) {
        set_cache(call.spec(), command[2]);
        return Executed::Yes;
    } else if (equals_ignoring_case(what, "TAG") && command.size() == 3) {
        return set_tag(call.spec(), command[2]);
    } else if (equals_ignoring_case(what, "SHM") && command.size() == 2) {
        return hand_out_memory(call);
    } else if (equals_ignoring_case(what, "HITS") && command.size() == 3) {
        count_hits(call.spec(), command[2]);
        return Executed::Yes;
    } else if (equals_ignoring_case(what, "EXPLAIN") && command.size() > 2) {
        explain(call);
        return Executed::Yes;
    } else if (command.size() == 1) {
        append_error(reply, "ERR wrong number of arguments for 'nearkey' command");
    } else {
        append_error(reply, fmt::format("ERR unknown subcommand or wrong number of arguments for "
                                        "'{}'. Try NEARKEY HELP.",
                                        what.substr(0, 128)));
    }
    desk_.answer(call.spec(), reply);
    return Executed::Yes;
}

Executed NearkeyCommand::set_tag(const CommandSpec* spec, std::string_view tag) {
    if (!RequestTags::is_valid(tag)) {
        desk_.answer_error(
            spec, fmt::format("ERR NEARKEY TAG takes up to {} printable characters, no spaces",
                              RequestTags::kLengthMax));
        return Executed::Yes;
    }
    if (desk_.tags == nullptr) desk_.tags = std::make_unique<RequestTags>();
    desk_.tags->keep_from(desk_.replies.first());
    if (desk_.tags->is_full()) return desk_.wait_until_idle();
    desk_.tags->set(tag, desk_.replies.next());
    desk_.answer(spec, "+OK\r\n");
    return Executed::Yes;
}

// A reader sees what was read by way of any connection, so it begins as on another way: behind a
// proof. Our clock tells it whether that is its own; the database is its connection's.
Executed NearkeyCommand::hand_out_memory(const Call& call) {
    const CommandSpec* const spec = call.spec();
    SegmentSource* const segment = desk_.context.segment;
    if (!desk_.terms.shared_memory || segment == nullptr) {
        desk_.answer_error(spec, desk_.terms.shared_memory
                                     ? "ERR the near cache is off (near_cache.enabled)"
                                     : "ERR shared memory is off (listener.shared_memory)");
        return Executed::Yes;
    }
    if (call.plan.is_queued) {
        desk_.answer_error(spec, "ERR NEARKEY SHM is not allowed in a transaction");
        return Executed::Yes;
    }
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (desk_.unsent() > 0) {
        desk_.answer_error(spec, "ERR NEARKEY SHM is sent alone: other replies are on their way");
        return Executed::Yes;
    }
    SegmentGrant grant = segment->hand_out();
    if (grant.descriptor.get() < 0) {
        desk_.answer_error(spec, "ERR " + grant.why_not);
        return Executed::Yes;
    }
    desk_.pass(std::move(grant.descriptor));
    if (!is_broken(Rule::SegmentOpened)) desk_.ledger.await_proof();
    desk_.answer(spec, fmt::format("+OK {} {:016x} {} {}\r\n", NEARKEY_SEGMENT_LAYOUT,
                                   grant.incarnation, Loop::boot_ns(), desk_.client.database));
    return Executed::Yes;
}

void NearkeyCommand::count_hits(const CommandSpec* spec, std::string_view number) {
    constexpr int64_t kHitsMax = 1'000'000;
    const auto hits = parse_integer(number);
    if (!hits || *hits < 1 || *hits > kHitsMax) {
        desk_.answer_error(spec, "ERR NEARKEY HITS is followed by a number from 1 to 1000000");
        return;
    }
    const auto count = static_cast<uint32_t>(*hits);
    desk_.context.metrics.shared_hits_total += count;
    desk_.answer(spec, "+OK\r\n");
    desk_.shared_hits = {desk_.shared_hits.total + count, count, desk_.tally.commands()};
}

void NearkeyCommand::set_cache(const CommandSpec* spec, std::string_view what) {
    const bool is_on = equals_ignoring_case(what, "ON");
    const bool is_clear = equals_ignoring_case(what, "CLEAR");
    if (!is_on && !is_clear && !equals_ignoring_case(what, "OFF")) {
        desk_.answer_error(spec, "ERR NEARKEY CACHE is followed by ON, OFF or CLEAR");
        return;
    }
    const LedgerContext& ledgers = desk_.context.ledgers;
    if (ledgers.cache == nullptr && is_on) {
        desk_.answer_error(spec,
                           "ERR the near cache is off (near_cache.enabled, max_staleness_ms)");
        return;
    }
    if (ledgers.cache != nullptr && is_clear) {
        ledgers.cache->clear(InvalidationCause::Asked, ledgers.boot_ms);
    } else if (ledgers.cache != nullptr) {
        desk_.client.cache_use = is_on ? CacheUse::On : CacheUse::Off;
    }
    desk_.answer(spec, "+OK\r\n");
}

void NearkeyCommand::explain(const Call& call) {
    // The command to explain, without the two words before it, as if a client had sent it.
    SessionContext& context = desk_.context;
    std::string& bytes = context.encoded;
    bytes.clear();
    append_array_header(bytes, call.command.size() - 2);
    for (size_t i = 2; i < call.command.size(); ++i)
        append_bulk(bytes, call.command[i]);
    CommandParser& parser = context.lookahead;
    parser.begin_stream();
    if (parser.next(bytes) != ParseResult::Command) return;
    const Plan plan = planner_.plan_for(parser.command());
    const Call explained{plan, parser.command()};
    const bool is_stale =
        plan.caching == Caching::Whole && !CachedReads::find_stale(desk_, explained).empty();
    Pairs pairs;
    pairs.add("command",
              plan.spec == nullptr ? explained.command[0].substr(0, 128) : plan.spec->name);
    pairs.add("route", is_stale ? "near cache" : way_in_words(plan));
    pairs.add("reason",
              is_stale ? "Valkey is away: near_cache.stale_if_unavailable_ms" : why_in_words(plan));
    const ServerFacts server = server_of(explained, pairs);
    pairs.add("server", server.address.empty() ? "none is connected" : server.address);
    pairs.add("role", server.address.empty() ? "not known" : server.role);
    explain_keys(explained, pairs);
    explain_cache(explained, pairs);
    std::string reply;
    append_map_header(reply, pairs.count, desk_.client.protocol);
    desk_.answer(call.spec(), reply + pairs.bytes);
}

// The server that would be asked: the node, or its replica.
ServerFacts NearkeyCommand::server_of(const Call& explained, Pairs& pairs) {
    Node& node = node_of(explained, pairs);
    Cluster* const cluster = desk_.context.cluster;
    if (cluster == nullptr || !desk_.terms.reads_replicas) return node.server();
    ReplicaRoute::Choice choice = ReplicaRoute(desk_).choose(explained);
    if (choice.refusal == ReplicaRefusal::None && count_parts(explained, *cluster) > 1) {
        choice = {ReplicaRefusal::Parts};
    }
    const bool is_read = choice.refusal == ReplicaRefusal::None;
    pairs.add("read_from", is_read ? "replica" : "primary");
    pairs.add("read_from_reason", in_words(choice.refusal));
    if (!is_read) return node.server();
    pairs.add("replica_proven_ms_ago", Loop::boot_ms() - choice.replica.proven_ms);
    return choice.replica.node->server();
}

// The node that would be asked; in a cluster, by the slot that is named as well.
Node& NearkeyCommand::node_of(const Call& explained, Pairs& pairs) {
    Cluster* const cluster = desk_.context.cluster;
    if (cluster == nullptr) return desk_.context.node;
    const Placement placement =
        place(explained.spec(), explained.command, desk_.context.ledgers.keys);
    const size_t parts = count_parts(explained, *cluster);
    pairs.add("parts", parts);
    pairs.add("atomic", parts > 1 ? "no" : "yes");
    if (placement.where == Placement::Where::EveryNode) {
        if (parts > 1) pairs.add("node", "all that own slots");
        return cluster->home();
    }
    const bool has_slot = placement.where == Placement::Where::Slot;
    Node& node = has_slot ? cluster->owner(placement.slot) : cluster->home();
    if (has_slot) pairs.add("slot", placement.slot);
    // The seed stands for nobody.
    const bool is_known = !has_slot || &node != &desk_.context.node;
    pairs.add("node", is_known ? to_text(node.target().url.endpoint()) : "nobody owns the slot");
    return node;
}

// The keys that the command may read and write, by the facts that Ledger::begin() uses.
void NearkeyCommand::explain_keys(const Call& explained, Pairs& pairs) {
    const auto& [plan, command] = explained;
    std::vector<std::string_view>& keys = desk_.context.ledgers.keys;
    keys.clear();
    pairs.add("writes", writes_in_words(plan, find_writes(plan, command, keys)));
    keys.clear();
    if (explained.is_sound() && plan.spec->find_keys(command, keys)) {
        pairs.add("keys", keys);
    } else {
        pairs.add("keys", "not known");
    }
}

// The near cache's treatment of the command now, and why.
void NearkeyCommand::explain_cache(const Call& explained, Pairs& pairs) {
    const auto& [plan, command] = explained;
    const LedgerContext& ledgers = desk_.context.ledgers;
    const bool is_suspended = plan.may_be_stored() && ledgers.cache->is_suspended();
    if (!plan.may_be_stored() || is_suspended) {
        pairs.add("cache", "bypassed");
        pairs.add("cache_reason", is_suspended
                                      ? "suspended: another nearkey has clients here (upgrade)"
                                      : caching_in_words(plan));
        return;
    }
    if (!plan.is_split()) {
        explain_key(desk_.ledger.query(*plan.spec, command), pairs);
        return;
    }
    for (size_t i = 1; i < command.size(); ++i) {
        const auto found = ledgers.cache->explain(desk_.ledger.query_part(*plan.spec, command[i]),
                                                  ledgers.boot_ms);
        pairs.add(fmt::format("cache, key {}", i),
                  fmt::format("{}: {}", name_of(found.outcome), reason_of(found)));
    }
}

void NearkeyCommand::explain_key(const CacheQuery& query, Pairs& pairs) {
    using Outcome = NearCache::Outcome;
    const LedgerContext& ledgers = desk_.context.ledgers;
    const NearCache::Explanation found = ledgers.cache->explain(query, ledgers.boot_ms);
    const bool is_stored = found.outcome == Outcome::Hit || found.outcome == Outcome::Unproven;
    pairs.add("cache", name_of(found.outcome));
    pairs.add("cache_reason", reason_of(found));
    if (is_stored) {
        pairs.add("shared", found.is_shared ? "yes" : "no");
        pairs.add("age_ms", found.age_ms);
        pairs.add("ttl_left_ms", found.left_ms);
        pairs.add("proven_ms_ago", found.proven_ms);
        pairs.add("connection", desk_.node_of(query.key).coherence().describe(found.source));
    }
    pairs.add("last_invalidation", name_of(found.cause));
    if (found.cause != InvalidationCause::None) {
        pairs.add("last_invalidation_ms_ago", found.invalidated_ms);
    }
}

}  // namespace nearkey
