#include "nearkey/resp/spread_rules.h"

#include "nearkey/resp/command_table.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace nearkey {

namespace {

struct SpreadRule {
    std::string_view name;  // all that begin so, if it ends with '|'
    Spread spread;
    Gather gather;
};

using enum Spread;

// clang-format off
constexpr SpreadRule kSpreadRules[] = {
    // A client that sees one server has no use for it.
    {"cluster|",             OneNode,  Gather::Same},
    // They are asked about one server, and a client has one.
    {"ping",                 OneNode,  Gather::Same},
    {"info",                 OneNode,  Gather::Same},
    {"client|",              OneNode,  Gather::Same},
    {"config|",              OneNode,  Gather::Same},
    {"memory|",              OneNode,  Gather::Same},
    {"latency|",             OneNode,  Gather::Same},
    {"slowlog|",             OneNode,  Gather::Same},
    // The tips say "special". One key of a node that has some; each is as likely as another only
    // if the nodes have as many.
    {"randomkey",            EachNode, Gather::Any},
    {"function|stats",       EachNode, Gather::Running},
    {"scan",                 Scan,     Gather::Same},
    // The tips name the replicas, too; nothing of a client's runs there.
    {"script|load",          EachNode, Gather::Same},
    {"script|flush",         EachNode, Gather::Same},
    // They have no tips: a node tells of its own clients.
    {"pubsub|channels",      EachNode, Gather::Union},
    {"pubsub|shardchannels", EachNode, Gather::Union},
    {"pubsub|numsub",        EachNode, Gather::Sum},
    {"pubsub|shardnumsub",   EachNode, Gather::Sum},
    {"pubsub|numpat",        EachNode, Gather::Sum},
};
// clang-format on

bool is_of(const SpreadRule& rule, std::string_view name) {
    return rule.name.ends_with('|') ? name.starts_with(rule.name) : name == rule.name;
}

std::string_view tip_of(const Value& tips, std::string_view kind) {
    for (const Value& tip : tips.elements) {
        if (tip.text.starts_with(kind)) return std::string_view(tip.text).substr(kind.size());
    }
    return {};
}

// Its keys are all words from a fixed place on, or every second one.
bool has_keys_to_the_end(const CommandSpec& spec) {
    if (!spec.names_keys || spec.key_specs.size() != 1 || spec.first_key == 0) return false;
    const KeySpec& keys = spec.key_specs[0];
    return keys.last == -1 && keys.limit <= 1;
}

}  // namespace

void apply_spread_rules(CommandSpec& spec, const Value* tips) {
    const auto* const rule = std::find_if(std::begin(kSpreadRules), std::end(kSpreadRules),
                                          [&](const auto& each) { return is_of(each, spec.name); });
    if (rule != std::end(kSpreadRules)) {
        spec.spread = rule->spread;
        spec.gather = rule->gather;
        return;
    }
    if (tips == nullptr) return;
    const std::string_view request = tip_of(*tips, "request_policy:");
    const std::string_view response = tip_of(*tips, "response_policy:");
    const bool is_each_slot = request == "multi_shard" && has_keys_to_the_end(spec);
    const bool is_each_node = request == "all_shards";
    if (!is_each_slot && !is_each_node) {
        const bool is_anywhere = request == "all_nodes" || request == "special";
        spec.spread = is_anywhere ? Nowhere : OneNode;
        return;
    }
    spec.spread = is_each_slot ? EachSlot : EachNode;
    if (response.empty()) {
        spec.gather = is_each_slot ? Gather::Values : Gather::Join;
    } else if (response == "agg_sum") {
        spec.gather = Gather::Sum;
    } else if (response == "agg_min") {
        spec.gather = Gather::Least;
    } else if (response == "agg_logical_and") {
        spec.gather = Gather::Every;
    } else if (response == "all_succeeded") {
        spec.gather = Gather::Same;
    } else if (response == "one_succeeded" && is_each_node) {
        spec.gather = Gather::One;
    } else {
        spec.spread = is_each_slot ? OneNode : Nowhere;
    }
}

}  // namespace nearkey
