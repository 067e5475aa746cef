// What clients do, and what happens to them, besides plain reads, writes and whole transactions.
// Each kind can be left out, to see what a violation needs.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <string_view>

namespace nearkey::simulation {

enum class Kind {
    Steps,       // transactions step by step, with and without WATCH
    Tunnels,     // and RESET out of them
    Hello,       // another protocol in mid-session
    Select,      // another database
    Scripts,     // that read what they do not name, and name nothing
    Undeclared,  // or name another key
    Keyspace,    // KEYS, SCAN, DBSIZE
    Blocking,    // BLPOP, and lists
    Lag,         // receivers, and others, that lag far behind
    Upstream,    // another upstream, and back
    Resets,      // CONFIG RESETSTAT
    Failovers,   // of one in two worlds: its two servers are a primary and a replica of it
    Nodes,       // of one in three: a cluster
    Segment,     // of one in three: clients that read shared memory
    Count,
};

constexpr std::array<std::string_view, static_cast<size_t>(Kind::Count)> kKindNames = {
    "steps",    "tunnels", "hello",    "select", "scripts",   "undeclared", "keyspace",
    "blocking", "lag",     "upstream", "resets", "failovers", "nodes",      "segment"};

class Kinds {
public:
    bool has(Kind kind) const { return !left_out_[static_cast<size_t>(kind)]; }
    void leave_out(Kind kind) { left_out_.set(static_cast<size_t>(kind)); }

private:
    std::bitset<static_cast<size_t>(Kind::Count)> left_out_;
};

}  // namespace nearkey::simulation
