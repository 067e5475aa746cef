// Where in a cluster a command has to run to be answered as by one server, and how the replies of
// its parts become one. By the tips of the server's COMMAND, and a small table for what they do not
// say. A part of CommandSpec.
// The one rule: what has no row and no tip that is known here is never answered by half.
#pragma once

#include <cstdint>

namespace nearkey {

struct CommandSpec;
struct Value;

enum class Spread : uint8_t {
    OneNode,   // where its first key is; without keys any node answers for all
    EachSlot,  // a part for each slot of its keys
    EachNode,  // every node that owns slots
    Scan,      // one node after the other, by its cursor
    Nowhere,   // it would have to be asked everywhere, and nobody knows how to put that together
};

enum class Gather : uint8_t {
    Values,   // an array with an element for each key, in the order of the keys
    Join,     // the elements of all arrays
    Union,    // the same, each once
    Sum,      // of integers, or of those at the same place of arrays
    Least,    // the same
    Every,    // the same: 1 if all are
    Same,     // all say the same, unless one fails: the first
    Any,      // one that is not nil
    Running,  // one that tells of a script that runs
    One,      // one that is no error
};

struct CommandSpread {
    Spread spread = Spread::OneNode;
    Gather gather = Gather::Same;
};

// Called once for each spec, behind all other rules. `tips`: null if the server has none.
void apply_spread_rules(CommandSpec& spec, const Value* tips);

}  // namespace nearkey
