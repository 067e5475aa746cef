#include "nearkey/session/spread_route.h"

#include "nearkey/base/check.h"
#include "nearkey/base/random.h"
#include "nearkey/session/shared_route.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// The number of the node among those that are asked.
uint16_t place_of(Node& node, std::vector<Node*>& nodes) {
    // Slots that follow each other mostly are of one node.
    if (!nodes.empty() && nodes.back() == &node) return static_cast<uint16_t>(nodes.size() - 1);
    const auto found = std::find(nodes.begin(), nodes.end(), &node);
    const auto number = static_cast<uint16_t>(found - nodes.begin());
    if (found == nodes.end()) nodes.push_back(&node);
    return number;
}
}  // namespace

std::optional<Executed> SpreadRoute::forward(const Call& call) {
    const CommandSpec* const spec = call.spec();
    if (spec == nullptr || !spec->accepts(call.command.size())) return std::nullopt;
    switch (spec->spread) {
        case Spread::EachSlot:
            return forward_by_slot(call);
        case Spread::EachNode:
            return forward_to_each_node(call);
        case Spread::Scan:
            return shared_.scan(call);
        case Spread::OneNode:
        case Spread::Nowhere:
            return std::nullopt;
    }
    return std::nullopt;
}

std::optional<Executed> SpreadRoute::forward_by_slot(const Call& call) {
    const Parts parts(*call.spec(), call.command);
    if (parts.is_incomplete()) {
        // The server's words; a node would only say that the slots differ.
        desk_.answer_error(
            call.spec(),
            fmt::format("ERR wrong number of arguments for '{}' command", call.spec()->name));
        return Executed::Yes;
    }
    Cluster& cluster = *desk_.context.cluster;
    if (parts.count() < 2) return std::nullopt;
    if (call.spec()->name == "mset" && !cluster.options().split_mset) return std::nullopt;
    Asked asked;
    asked.plan.node_of.reserve(parts.count());
    for (size_t part = 0; part < parts.count(); ++part) {
        if (!desk_.is_in_order(parts.slot(part))) return desk_.wait_for_order();
        asked.plan.node_of.push_back(place_of(cluster.owner(parts.slot(part)), asked.nodes));
    }
    if (const auto executed = pin_all(call, asked)) return *executed;
    send_by_slot(call, parts, std::move(asked));
    return Executed::Yes;
}

void SpreadRoute::send_by_slot(const Call& call, const Parts& parts, Asked asked) {
    SessionContext& context = desk_.context;
    std::vector<size_t>& missing = context.ledgers.missing;
    const std::vector<size_t> all_missing = missing;
    asked.plan.how = call.spec()->gather;
    asked.plan.may_be_delayed = true;
    if (asked.plan.how == Gather::Values) asked.plan.part_of = parts.part_of();
    const std::vector<uint16_t> node_of = asked.plan.node_of;
    const uint32_t ticket = desk_.open_parts(call, std::move(asked.plan));
    Plan plan = call.plan;
    std::string& bytes = context.encoded;
    for (size_t part = 0; part < parts.count(); ++part) {
        bytes.clear();
        parts.encode(part, bytes);
        context.lookahead.begin_stream();
        const ParseResult parsed = context.lookahead.next(bytes);
        NEARKEY_CHECK(parsed == ParseResult::Command);
        const CommandView& command = context.lookahead.command();
        if (call.plan.may_be_stored()) {
            plan.caching = call.spec()->is_split(command) ? Caching::Split : Caching::Whole;
            // Of this part's keys those that are not stored, by their places in it.
            missing.clear();
            size_t place = 1;
            for (const size_t in_all : parts.places(part)) {
                if (std::binary_search(all_missing.begin(), all_missing.end(), in_all))
                    missing.push_back(place);
                ++place;
            }
        }
        Connection& connection = *asked.connections[node_of[part]];
        desk_.send_part({plan, command}, ticket + static_cast<uint32_t>(part),
                        {*asked.nodes[node_of[part]], connection, true}, bytes);
    }
}

// Nothing of this client's is on its way meanwhile: a slot that moves could let it change places
// with this.
Executed SpreadRoute::forward_to_each_node(const Call& call) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    Asked asked;
    asked.nodes = desk_.context.cluster->primaries.nodes();
    if (asked.nodes.empty()) {
        desk_.answer_error(call.spec(),
                           "UPSTREAMDOWN who owns which slot is not known yet; not sent");
        return Executed::Yes;
    }
    for (size_t i = 0; i < asked.nodes.size(); ++i)
        asked.plan.node_of.push_back(static_cast<uint16_t>(i));
    if (const auto executed = pin_all(call, asked)) return *executed;
    asked.plan.how = call.spec()->gather;
    if (asked.plan.how == Gather::Any) asked.plan.draw = random_word();
    KnownScripts* const scripts = desk_.context.scripts;
    if (scripts != nullptr && call.spec()->name == "script|flush") scripts->clear();
    const uint32_t ticket = desk_.open_parts(call, std::move(asked.plan));
    const std::string_view bytes = desk_.canonical(call.command);
    for (size_t i = 0; i < asked.nodes.size(); ++i) {
        desk_.send_part(call, ticket + static_cast<uint32_t>(i),
                        {*asked.nodes[i], *asked.connections[i], true}, bytes);
    }
    // All may have failed already.
    if (desk_.owed() > 0) desk_.pauses.pause(PauseReason::kUntilIdle, nullptr);
    return Executed::Yes;
}

std::optional<Executed> SpreadRoute::pin_all(const Call& call, Asked& asked) {
    for (Node* const node : asked.nodes) {
        if (const auto executed = shared_.pin_to(*node, call.spec())) return executed;
        asked.connections.push_back(shared_.connection());
        asked.plan.nodes.push_back(to_text(node->target().url.endpoint()));
    }
    return std::nullopt;
}

}  // namespace nearkey
